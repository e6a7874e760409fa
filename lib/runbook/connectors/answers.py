"""What vendors answer, read tolerantly: a field that is absent or of another kind is unknown, never 0, never an error.

Only what a diagnosis needs is taken over; bodies hold people's data and are never kept whole. Times come out as ISO
8601 in UTC, with milliseconds, so that they also sort as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Any, TypeVar

from runbook.connectors.base import Failure, Fetched, Unavailable
from runbook.connectors.http import HttpConnector

S = TypeVar("S")
T = TypeVar("T")

TEXT_CHARACTERS = 500
"""A longer text of a vendor is cut."""
MOST_AT_ONCE = 16
"""Threads of one reading."""
# The end of a domain has no digits, and that of a release such as app@1.4.0 has.
_EMAIL = re.compile(r"[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_FAR_AHEAD = 1e11
"""Seconds since 1970 in the year 5138; a larger number counts milliseconds."""


def inside(value: Any, *path: str) -> Any:
    """What stands at ``path`` in nested objects; ``None`` where that breaks off."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text(value: Any) -> str | None:
    """A name or an identifier, cut to :data:`TEXT_CHARACTERS`; a number as its digits."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    plain = str(value)
    return plain if len(plain) <= TEXT_CHARACTERS else plain[:TEXT_CHARACTERS] + "…"


def prose(value: Any) -> str | None:
    """A text that somebody or something wrote, without the e-mail addresses in it; cut as well."""
    if not isinstance(value, str):
        return None
    return text(_EMAIL.sub("[e-mail]", value[: 4 * TEXT_CHARACTERS].strip()))


def number(value: Any) -> float | None:
    """A finite number, also when it is written as a text (``"39"``, ``"NaN"`` is unknown)."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """A whole number, also when it is written as a text."""
    found = number(value)
    return None if found is None else int(found)


def instant(value: Any) -> datetime | None:
    """A point in time, in UTC: ISO 8601 with any offset (none = UTC), or seconds or milliseconds since 1970."""
    seconds = number(value)
    try:
        if seconds is not None:
            return datetime.fromtimestamp(seconds / 1000 if seconds > _FAR_AHEAD else seconds, UTC)
        if not isinstance(value, str):
            return None
        found = datetime.fromisoformat(value)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None


def iso(value: Any) -> str | None:
    """The same as text."""
    at = value if isinstance(value, datetime) else instant(value)
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds")


def zulu(at: datetime) -> str:
    """A time as a parameter of a request: whole seconds, ``Z``."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def first_line(value: Any) -> str | None:
    """First line of what somebody wrote."""
    return prose(value.strip().split("\n", 1)[0]) if isinstance(value, str) else None


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none when it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def known(value: Any, names: Mapping[str, T], otherwise: T) -> T:
    """What ``names`` says of an enumerated value; a vendor may add one that we do not know."""
    return names.get(value, otherwise) if isinstance(value, str) else otherwise


def together(
    connector: HttpConnector, items: Sequence[S], ask: Callable[[S], T], *, within_seconds: float | None = None
) -> list[T | Failure]:
    """``ask`` of every item at the same time: results in their order, and how it failed where it did.

    What is not there ``within_seconds`` is left behind, and has failed with a timeout; without that, the limits of the
    requests themselves hold.
    """

    def attempt(item: S) -> T | Failure:
        try:
            return ask(item)
        except Unavailable as unavailable:
            return unavailable.failure
        except connector.failures as error:
            return connector.failure(error)

    if not items:
        return []
    pool = ThreadPoolExecutor(max_workers=min(MOST_AT_ONCE, len(items)), thread_name_prefix=connector.source)
    asked = [pool.submit(attempt, item) for item in items]
    in_time, _ = wait(asked, timeout=within_seconds)
    pool.shutdown(wait=False, cancel_futures=True)
    late = Failure(state="timeout", reason="no answer in time")
    return [future.result() if future in in_time else late for future in asked]


def collected(connector: HttpConnector, pages: Iterator[tuple[list[T], bool]], of: str) -> tuple[list[T], str]:
    """Items of all pages, and in words what is missing.

    Parameters
    ----------
    pages
        Items of a page, and whether it is the last one that is read although more would follow.
    of
        What the items are: ``commits``.

    A page that fails after the first one leaves what was read before it.
    """
    found: list[T] = []
    try:
        for items, cut in pages:
            found += items
            if cut:
                return found, f"only the newest {len(found)} {of} were read, there are more"
    except (Unavailable, *connector.failures) as error:
        if not found:
            raise
        failure = error.failure if isinstance(error, Unavailable) else connector.failure(error)
        return found, f"only the newest {len(found)} {of} were read: {failure.reason}"
    return found, ""


def unread(results: Sequence[object], of: str) -> str:
    """In words, which of several requests failed; empty when none did."""
    failures = [result for result in results if isinstance(result, Failure)]
    return f"{of} of {len(failures)} of {len(results)} not read: {failures[0].reason}" if failures else ""


def fetched(value: Any, *missing: str) -> Fetched:
    """A value, and what is missing from it in as many words as there are."""
    return Fetched(value=value, partial="; ".join(filter(None, missing)))

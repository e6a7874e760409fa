"""Orders by a person: an action that no run proposed, kept in the log as a proposal is kept in a result document.

Only a kind that says so may be ordered: whoever has looked can name what it acts on, and no identity that only a
diagnosis has read is needed. An order belongs to a run, whose symptom tells afterwards whether it helped, and goes the
way of every proposal: plan, approve, apply, verify, undo. No policy takes it up.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from runbook.actions.kinds import KINDS, Kind, Said, kind_named
from runbook.actions.looking import redactor
from runbook.actions.plan import Order, Refused
from runbook.errors import InvalidParameter
from runbook.store.action_log import Moved

if TYPE_CHECKING:
    from runbook.settings import Settings
    from runbook.store.action_log import ActionLog, Entry

MAX_TEXT, MAX_TITLE, MAX_LABELS = 4000, 200, 64
_UNKEEPABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class Orders:
    """Takes orders, and finds them again."""

    def __init__(self, settings: Settings, action_log: ActionLog) -> None:
        self._settings = settings
        self._log = action_log

    async def make(
        self, kind: str, targets: Sequence[Mapping[str, Any]], *, result: Mapping[str, Any], actor: str, title: str = ""
    ) -> Order:
        """Write down what a person wants done; nothing is looked at yet, and nothing changed.

        Parameters
        ----------
        kind
            Its name, or the end of it where no other kind ends so: ``silence``.
        targets
            What it is about, at most one; what is not said comes from the run and the settings where they know it.
        result
            The result document of the run that it belongs to.

        Raises
        ------
        InvalidParameter
            There is no such kind, or the target does not fit it.
        Refused
            That kind is not ordered by anybody.
        """
        name, form = orderable(kind)
        parameters = result.get("parameters") or {}
        settings = self._settings.for_service(str(parameters.get("service") or ""))
        target = await asyncio.to_thread(_completed, form(settings), name, targets, result)
        title = _text("title", title or form.called, MAX_TITLE)
        if redactor(settings).value([target, title]) != [target, title]:
            raise InvalidParameter("a secret stands in it, and would stay in the log", remedy="Say it without")
        run_id = str(result["run_id"])
        for number in itertools.count(len(await self.of(run_id)) + 1):
            order = Order(
                id=f"{run_id}:ordered-{number}", run_id=run_id, runbook=str(result["runbook"]), parameters=parameters,
                cause="", tier="", kind=name, title=title, targets=[target] if target else [], by_hand="",
                undo="see its plan", needs=None, symptom=result.get("symptom") or {}, ordered_by=actor,
            )  # fmt: skip
            try:
                await self._log.append(order.id, "ordered", actor, asdict(order), after=None)
            except Moved:  # somebody ordered something else of this run at the same moment
                continue
            return order
        raise AssertionError("unreachable")

    async def of(self, run_id: str) -> list[Order]:
        """What persons ordered about a run, in that order."""
        return [_order(entry) for entry in await self._log.ordered(run_id)]

    async def one(self, action: str) -> Order | None:
        """An order by its id; ``None`` when nobody made it."""
        return next((order for order in await self.of(action.partition(":")[0]) if order.id == action), None)


def orderable(kind: str) -> tuple[str, type[Kind]]:
    """The full name and the class of a kind that a person may order.

    Raises
    ------
    InvalidParameter
        There is none of that name, or several.
    Refused
        That kind is not ordered by anybody.
    """
    meant = [kind] if kind in KINDS else [name for name in KINDS if name.partition(".")[2] == kind and _may(name)]
    if len(meant) > 1:
        raise InvalidParameter(f"{kind!r} is {' or '.join(meant)}", remedy="Say which")
    found = kind_named(meant[0]) if meant else None
    if found is None:
        raise InvalidParameter(f"there is no action {kind[:60]!r}", remedy=f"Ordered are: {', '.join(_all())}")
    if not found.may_be_ordered:
        raise Refused(
            f"{kind} is never ordered: what it acts on, a diagnosis has to read",
            remedy=f"Run the runbook and take what it proposes. Ordered are: {', '.join(_all())}",
        )
    return meant[0], found


def typed(kind: str, texts: Iterable[str]) -> list[dict[str, Any]]:
    """Targets as a person types them: each JSON object is one; all ``KEY=VALUE`` together are one more.

    ``labels.service=api`` is the entry ``service`` of ``labels``.

    Raises
    ------
    InvalidParameter
        A text is neither, or says no number where one belongs.
    Refused
        That kind is not ordered by anybody.
    """
    said = orderable(kind)[1].said
    targets: list[dict[str, Any]] = []
    pairs: dict[str, Any] = {}
    for text in texts:
        if text.lstrip().startswith("{"):
            targets.append(_object(text))
            continue
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise InvalidParameter(f"{text[:60]!r} is neither KEY=VALUE nor a JSON object", remedy="Try minutes=60")
        of, _, entry = key.partition(".")
        if entry and of in said and said[of].form == "labels":
            pairs.setdefault(of, {})[entry] = value
        else:
            pairs[key] = _valued(value, said.get(key))
    return [*targets, pairs] if pairs else targets


# -- helpers -----------------------------------------------------------------------------------------------------------


def _may(name: str) -> bool:
    found = kind_named(name)
    return found is not None and found.may_be_ordered


def _all() -> list[str]:
    return [name for name in KINDS if _may(name)]


def _order(entry: Entry) -> Order:
    return Order(**entry.detail)


def _completed(
    hands: Kind, name: str, targets: Sequence[Mapping[str, Any]], result: Mapping[str, Any]
) -> dict[str, Any]:
    """The one target, as the kind means it, checked."""
    if len(targets) > 1:
        raise InvalidParameter(f"{len(targets)} targets, and an order has one", remedy="Order each of them by itself")
    given = dict(targets[0]) if targets else {}
    if strange := [str(key)[:40] for key in given if key not in hands.said]:
        takes = ", ".join(hands.said) or "nothing: it needs no target"
        raise InvalidParameter(f"{name} knows no {', '.join(strange)}", remedy=f"It takes {takes}")
    given = {key: _checked(key, value, hands.said[key]) for key, value in given.items()}
    target = dict(hands.completed(given, result))
    for key, one in hands.said.items():
        if one.needed and key not in target:
            raise InvalidParameter(f"{name} needs {key}: {one.means}", remedy=f"Say {key}=…")
    return target


def _checked(key: str, value: Any, said: Said) -> Any:
    if said.form == "number":
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidParameter(f"{key} is no number: {said.means}", remedy=f"Say {key}=60")
        return value
    if said.form == "text":
        return _text(key, value, MAX_TEXT)
    if not isinstance(value, Mapping) or not 0 < len(value) <= MAX_LABELS:
        raise InvalidParameter(f"{key} are no labels: {said.means}", remedy=f"Say {key}.alertname=…")
    return {_text(key, name, MAX_TITLE): _text(key, text, MAX_TEXT) for name, text in value.items()}


def _text(key: str, value: Any, most: int) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidParameter(f"{key} is no text, or an empty one")
    if len(value) > most or _UNKEEPABLE.search(value):
        raise InvalidParameter(f"{key} is too long ({most} characters at most), or holds control characters")
    return value


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidParameter(f"{text[:60]!r} is no JSON object", remedy="Or say KEY=VALUE")
    return found


def _valued(text: str, said: Said | None) -> Any:
    if said is None or said.form == "text":
        return text
    if said.form == "labels":
        return _object(text)
    try:
        number = float(text)
        return int(number) if number.is_integer() else number
    except ValueError:
        raise InvalidParameter(f"{text[:40]!r} is no number: {said.means}") from None

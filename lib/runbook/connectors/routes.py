"""Paths of requests as routes: what names one video or one person is taken out, so that requests of a kind fall
together and nobody's data stands in a report.

Query strings go altogether. What looks like an id becomes ``:id``; where one place in a path has had too many
different words to be the names of routes, they become ``:name``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

MOST_NAMES = 50
"""More different words than this in one place of a path are no names of routes."""
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")
_ID = re.compile(
    r"""
      [0-9]+ | [0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}
    | (?=[^0-9]*[0-9])[0-9a-fA-F]{8,} | [0-9a-fA-F]{24,}      # hexadecimal
    | c[a-z0-9]{24} | [0-9A-HJKMNP-TV-Z]{26}                  # cuid, ULID
    | (?=(?:[^0-9]*[0-9]){2})[A-Za-z0-9_-]{16,}               # any other long mix of letters and digits
    | [A-Za-z]{1,10}[_-](?=(?:[A-Za-z_-]*[0-9]){2})[A-Za-z0-9_-]{4,} # prefixed: user_1a2b3c
    | (?=(?:[^0-9]*[0-9]){4})[A-Za-z0-9_-]{8,}
    | [A-Za-z]{1,20}[_-][0-9]+                                # numbered: content-107
    | .*(?:@|%[0-9A-Fa-f]{2}|[^\x21-\x7e]).* | .{41,}
    """,
    re.VERBOSE,
)
MAX_SEGMENTS = 8


@lru_cache(maxsize=65_536)
def route(path: str) -> str:
    """A path as a route: ids become ``:id``, the query is gone, so that requests of one kind fall together."""
    path = _ORIGIN.sub("", without_query(path), count=1) or "/"
    segments = [segment for segment in path.split("/") if segment]
    return "/" + "/".join(map(_named, segments[:MAX_SEGMENTS])) + ("/…" if len(segments) > MAX_SEGMENTS else "")


def _named(segment: str) -> str:
    """A segment of a path without what is an id in it, also between dots: ``app.3f2a9c1b.js``."""
    if _ID.fullmatch(segment):
        return ":id"
    return ".".join(":id" if _ID.fullmatch(part) else part for part in segment.split("."))


_QUERY = re.compile(r"[?#;]")


def without_query(target: str) -> str:
    """A request's target without its query."""
    return _QUERY.split(target, maxsplit=1)[0]


def routes(paths: Iterable[str]) -> dict[str, str]:
    """The route of each path, by what the paths have in common."""
    alone = {path: route(path) for path in set(paths)}
    common = {name: name for name in alone.values()}
    for depth in range(MAX_SEGMENTS):
        children: dict[str, set[str]] = defaultdict(set)
        for name in common.values():
            parts = name.split("/")
            if len(parts) > depth + 1:
                children["/".join(parts[: depth + 1])].add(parts[depth + 1])
        crowded = {prefix for prefix, words in children.items() if len(words) > MOST_NAMES}
        if crowded:
            common = {name: _without_name(now, depth, crowded) for name, now in common.items()}
    return {path: common[name] for path, name in alone.items()}


def _without_name(name: str, depth: int, crowded: set[str]) -> str:
    parts = name.split("/")
    if len(parts) > depth + 1 and "/".join(parts[: depth + 1]) in crowded and parts[depth + 1] != ":id":
        parts[depth + 1] = ":name"
    return "/".join(parts)

"""What the store keeps of a result document: a summary for lists and messages, and the words to find it by.

The document itself lies in the archive. Pure functions; they take any mapping and never fail on a missing key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_TOP_CAUSES = 5
_SEARCH_CHARACTERS = 20_000
_FOUND = ("confirmed", "probable", "possible")


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """Symptom, impact, the causes that were found, how many sources could not be read, and which revision it is."""
    revision = result.get("revision") or {}
    return {
        **({"revision": int(revision["number"])} if "number" in revision else {}),
        "symptom": result.get("symptom"),
        "impact": result.get("impact"),
        "causes": [
            {key: cause.get(key) for key in ("cause", "name", "tier", "share", "role")}
            for cause in _found(result)[:_TOP_CAUSES]
        ],
        "not_checked": len(result.get("not_checked") or ()),
        "actions": [action.get("title") for action in result.get("actions") or ()],
    }


def search_text(result: Mapping[str, Any]) -> str:
    """The words that find a report: ids, titles, service, outcome, causes found and whom they name, who worked on it,
    what became of its actions."""
    words = [
        result.get("run_id"),
        result.get("runbook"),
        result.get("title"),
        result.get("severity"),
        result.get("state"),
        result.get("outcome"),
        result.get("impact"),
        (result.get("symptom") or {}).get("label"),
        (result.get("error") or {}).get("message"),
    ]
    alert = result.get("alert") or {}
    words += [alert.get("name"), alert.get("service"), *(result.get("parameters") or {}).values()]
    words += [(result.get("revision") or {}).get("by"), result.get("asked_by")]
    words += [action.get("became") for action in result.get("actions") or ()]
    for cause in _found(result):
        words += [cause.get("cause"), cause.get("name"), *_texts(cause.get("details"))]
    text = " ".join(word for word in words if isinstance(word, str) and word)
    return text.replace("\x00", " ")[:_SEARCH_CHARACTERS]


def _found(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [cause for cause in result.get("verdict") or () if cause.get("tier") in _FOUND]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)

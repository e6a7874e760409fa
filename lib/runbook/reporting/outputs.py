"""Which parts of a cell's output reach a report, and how much of them.

One allowed representation is kept of each output; scripts, widgets, diagrams that need a script and whatever is not
known are left out. What is too long is cut, and says so where it is cut: the whole of it stays in the notebook that is
archived beside the report.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from runbook.reporting import words
from runbook.result import RESULT_MIME

ALLOWED = (
    RESULT_MIME,
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "image/png",
    "image/jpeg",
    "text/plain",
)
"""MIME types that are shown, the one that is preferred first."""

MAX_STREAM, MAX_HTML, MAX_TEXT, MAX_PICTURE = 24_000, 120_000, 24_000, 1_500_000
"""Characters of one output that are shown."""

MAX_ALL_OUTPUTS = 3_000_000
"""Characters of all outputs of a report; what comes after is left out."""

_MAGIC = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
_ELSEWHERE = "All of it is in notebook.ipynb, beside this report."


def shown(output: Mapping[str, Any]) -> dict[str, Any] | None:
    """An output as the report shows it: one representation, cut to size; ``None`` when nothing of it may be shown."""
    kind = output.get("output_type")
    if kind == "stream":
        text, note = _middle_cut(_joined(output.get("text")), MAX_STREAM)
        return {"output_type": "stream", "name": _stream_name(output), "text": text, "note": note}
    if kind == "error":
        trace, note = _middle_cut("\n".join(words.texts(output.get("traceback"))), MAX_STREAM)
        name, value = str(output.get("ename", "")), str(output.get("evalue", ""))[:2000]
        return {"output_type": "error", "ename": name, "evalue": value, "traceback": [trace], "note": note}
    if kind in ("display_data", "execute_result"):
        return _display(words.mapping(output.get("data")), words.mapping(output.get("metadata")))
    return None


def length(output: Mapping[str, Any]) -> int:
    """Characters that an output of :func:`shown` adds to the page, about."""
    return sum(len(str(value)) for value in output.values())


def left_out(count: int) -> dict[str, Any]:
    """A stand-in for outputs that no longer fit into the page."""
    noun = "output is" if count == 1 else "outputs are"
    return _note_only(f"{count} more {noun} left out: this report is full. {_ELSEWHERE}")


def _stream_name(output: Mapping[str, Any]) -> str:
    return "stderr" if output.get("name") == "stderr" else "stdout"


def _joined(value: Any) -> str:
    return "".join(words.texts(value)) if isinstance(value, list) else str(value or "")


def _note_only(note: str) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {"text/plain": ""}, "metadata": {}, "note": note}


def _display(data: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = next((mime for mime in ALLOWED if mime in data), None)
    if kind is None:
        return None if not data else _note_only(f"Not shown in a report: {', '.join(sorted(map(str, data)))[:200]}.")
    value, note = data[kind], ""
    if kind == RESULT_MIME:
        return {"output_type": "display_data", "data": {kind: words.mapping(value)}, "metadata": {}, "note": ""}
    text = _joined(value)
    if kind in _MAGIC:
        picture = _picture(text, kind)
        if picture is None:
            return _note_only(f"A picture is not shown: it is damaged or larger than fits. {_ELSEWHERE}")
        text = picture
    elif kind == "text/html":
        text, note = _html_cut(text)
    elif kind == "image/svg+xml":
        if len(text) > MAX_PICTURE:
            return _note_only(f"A drawing is not shown: it is larger than fits. {_ELSEWHERE}")
    else:
        text, note = _middle_cut(text, MAX_TEXT)
    alt = _alternative(data, metadata, kind)
    return {"output_type": "display_data", "data": {kind: text}, "metadata": {"alt": alt}, "note": note}


def _alternative(data: Mapping[str, Any], metadata: Mapping[str, Any], kind: str) -> str:
    """A picture in words: what its author said, else its plain text unless that is only the name of an object."""
    said = words.mapping(metadata.get(kind)).get("alt") or metadata.get("alt")
    text = str(said) if said else _joined(data.get("text/plain"))
    return "" if text.startswith("<") else text[:1000]


def _picture(encoded: str, kind: str) -> str | None:
    if len(encoded) > MAX_PICTURE:
        return None
    try:
        raw = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(raw).decode("ascii") if raw.startswith(_MAGIC[kind]) else None


def _middle_cut(text: str, limit: int) -> tuple[str, str]:
    """The beginning and the end, where errors are; whole lines where they can be had."""
    if len(text) <= limit:
        return text, ""
    head, tail = text[: limit * 2 // 3], text[-(limit // 3) :]
    head = head[: head.rfind("\n") + 1] or head
    tail = tail[tail.find("\n") + 1 :] or tail
    missing = len(text) - len(head) - len(tail)
    cut = f"[… {words.number(missing)} characters left out …]"
    return f"{head}\n{cut}\n\n{tail}", f"Cut: {words.number(missing)} characters are left out. {_ELSEWHERE}"


def _html_cut(text: str) -> tuple[str, str]:
    if len(text) <= MAX_HTML:
        return text, ""
    row = text.rfind("</tr>", 0, MAX_HTML)
    cut = text[: row + 5] if row > 0 else text[:MAX_HTML]
    what = f"{words.number(text.count('</tr>') - cut.count('</tr>'))} rows" if row > 0 else "the rest"
    return cut, f"Cut: {what} left out. {_ELSEWHERE}"

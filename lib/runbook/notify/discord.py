"""One Discord message for a run: what is wrong, on what grounds in a line each, and where the report is.

Everything that comes from outside is escaped, and nobody is mentioned but whom the settings name. The webhook URL is
a secret: it is in no error, no log and no value that is returned. A URL that Discord calls gone or wrong is not used
again by this process, since repeats get the address banned.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import structlog

from runbook.connectors.discord import CONTENT, escaped, units

log = structlog.get_logger(__name__)

TITLE, DESCRIPTION, FIELDS, FIELD_NAME, FIELD_VALUE, FOOTER, EMBED = (
    256, 4096, 25, 256, 1024, 2048, 6000,
)  # fmt: skip
"""Discord's limits, in characters (``FIELDS``: number of them; ``EMBED``: all texts of a message's embeds together)."""

_COLOURS = {"critical": 0xC0392B, "page": 0xC0392B, "high": 0xC0392B, "warning": 0xE67E22, "info": 0x2980B9}
_OTHER_COLOUR, _FAILED_COLOUR, _WELL_COLOUR = 0x7F8C8D, 0x8E44AD, 0x27AE60
_OUTCOMES = {
    "diagnosed": "Diagnosed",
    "insufficient_data": "Not enough data",
    "undetermined": "Undetermined",
    "no_current_fault": "No fault now",
    "healthy": "Healthy",
}
_TOP_CAUSES = 3
_TOP_ACTIONS = 5
_FOUND = ("confirmed", "probable", "possible")

_RUN_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
"""What may stand in a command to copy."""


def message(result: Mapping[str, Any], report_url: str, mention: str = "", *, jupyter_url: str = "") -> dict[str, Any]:
    """The webhook body for a run that ended.

    Parameters
    ----------
    result
        A result document; keys that a run cut short lacks may be missing.
    report_url
        Where the report is served; empty when there is none.
    mention
        ``<@user id>``, ``<@&role id>``, ``@here``, ``@everyone`` or nothing: the only mention that may ring.
    jupyter_url
        The link that opens the run in JupyterLab, while ``runbook jupyter`` runs; empty = only the command.
    """
    state = str(result.get("state", ""))
    ended_well = state == "succeeded"
    outcome = _OUTCOMES.get(str(result.get("outcome")), "Undetermined") if ended_well else f"Run {state or 'ended'}"
    embed: dict[str, Any] = {
        "title": _cut(f"{outcome}: {_plain(result.get('title') or result.get('runbook'))}", TITLE),
        "color": _colour(result, ended_well),
        "fields": [],
    }
    if report_url.startswith(("http://", "https://")):
        embed["url"] = report_url
    embed["description"] = _cut("\n".join(_lines(result, report_url, jupyter_url)), DESCRIPTION)
    embed["fields"] = _fields(result)
    # A footer knows no markup: escapes would be seen in it.
    embed["footer"] = {"text": _cut(f"run {_line(result.get('run_id'))}", FOOTER)}
    body: dict[str, Any] = {"embeds": [_within_limits(embed)], "allowed_mentions": _allowed(mention)}
    if mention:
        body["content"] = _cut(mention, CONTENT)
    return body


def line(text: str) -> dict[str, Any]:
    """The webhook body of one line, as text: no markup, no mention."""
    return {"content": _cut(_plain(text), CONTENT), "allowed_mentions": _allowed("")}


def _colour(result: Mapping[str, Any], ended_well: bool) -> int:
    if not ended_well:
        return _FAILED_COLOUR
    if result.get("outcome") in ("healthy", "no_current_fault"):
        return _WELL_COLOUR
    return _COLOURS.get(str(result.get("severity", "")).lower(), _OTHER_COLOUR)


def _lines(result: Mapping[str, Any], report_url: str, jupyter_url: str) -> list[str]:
    lines = []
    alert = result.get("alert") or {}
    if alert.get("name"):
        service = f" on {_plain(alert['service'])}" if alert.get("service") else ""
        lines.append(f"Alert **{_plain(alert['name'])}**{service}, severity {_plain(result.get('severity') or 'none')}")
    error = result.get("error") or {}
    if error:
        where = f" in cell {error['cell']}" if error.get("cell") is not None else ""
        lines.append(f"**{_plain(error.get('name') or 'Error')}**{where}: {_cut(_plain(error.get('message')), 500)}")
    symptom = result.get("symptom") or {}
    if symptom.get("value") is not None:
        limit = f", limit {symptom['threshold']:g}" if isinstance(symptom.get("threshold"), int | float) else ""
        lines.append(f"{_plain(symptom.get('label'))}: {_plain(symptom['value'])} {_plain(symptom.get('unit'))}{limit}")
    if result.get("impact") not in (None, "", "unknown"):
        lines.append(f"Impact: {_cut(_plain(result['impact']), 500)}")
    if revision := result.get("revision"):
        who = str(revision.get("by", "")).removeprefix("person:")
        lines.append(f"Worked through by {_plain(who)}, revision {_plain(revision.get('number'))} of the report")
    if not report_url:
        lines.append("There is no report of this run.")
    elif not report_url.startswith(("http://", "https://")):
        lines.append(f"Report: {_plain(report_url)}")
    if report_url and _RUN_ID.fullmatch(str(result.get("run_id"))):
        command = f"`runbook jupyter {result['run_id']}`"
        lines.append(f"[Open in JupyterLab]({jupyter_url}), or {command}" if jupyter_url
                     else f"Open in JupyterLab: {command}")  # fmt: skip
    return lines


def _fields(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [cause for cause in result.get("verdict") or () if cause.get("tier") in _FOUND]
    fields = [_cause_field(place, cause) for place, cause in enumerate(found[:_TOP_CAUSES], 1)]
    if len(found) > _TOP_CAUSES:
        fields.append({"name": "Further causes", "value": f"{len(found) - _TOP_CAUSES} more in the report"})
    if unseen := result.get("not_checked") or ():
        sources = ", ".join(dict.fromkeys(_plain(item.get("source")) for item in unseen))
        fields.append({"name": f"Not checked: {len(unseen)}", "value": _cut(sources or "see the report", FIELD_VALUE)})
    if titles := [_action(action) for action in result.get("actions") or ()]:
        listed = [f"{n}. {_cut(title, 150)}" for n, title in enumerate(titles[:_TOP_ACTIONS], 1)]
        fields.append(
            {
                "name": "Actions" if result.get("revision") else "Proposed actions",
                "value": _cut("\n".join(listed), FIELD_VALUE),
            }
        )
    return fields[:FIELDS]


def _action(action: Mapping[str, Any]) -> str:
    """Its title, and what became of it when somebody took it."""
    became = action.get("became") or (action.get("state") if action.get("state") not in (None, "proposed") else "")
    return f"{_plain(action.get('title'))}{f': {_plain(became)}' if became else ''}"


def _cause_field(place: int, cause: Mapping[str, Any]) -> dict[str, Any]:
    share = cause.get("share")
    facts = [_plain(cause.get("tier"))]
    if isinstance(share, int | float):
        facts.append(f"explains {share:.0%}")
    if cause.get("role") not in (None, "main"):
        facts.append(_plain(cause["role"]))
    named = [
        f"{_plain(key)}: {_cut(_plain(value), 120)}"
        for key, value in (cause.get("details") or {}).items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    ]
    name = f"{place}. {_plain(cause.get('cause'))} {_plain(cause.get('name'))}"
    value = "\n".join([", ".join(facts), *named[:6]])
    return {"name": _cut(name, FIELD_NAME), "value": _cut(value, FIELD_VALUE)}


def _allowed(mention: str) -> dict[str, Any]:
    """Nobody, or exactly whom the settings name."""
    if match := re.fullmatch(r"<@&(\d+)>", mention):
        return {"parse": [], "roles": [match[1]]}
    if match := re.fullmatch(r"<@!?(\d+)>", mention):
        return {"parse": [], "users": [match[1]]}
    if mention in ("@here", "@everyone"):
        return {"parse": ["everyone"]}
    return {"parse": []}


def _within_limits(embed: dict[str, Any]) -> dict[str, Any]:
    """Fields leave from the end until the embed is short enough; the description gives way last."""
    while _length(embed) > EMBED and embed["fields"]:
        embed["fields"].pop()
    over = _length(embed) - EMBED
    if over > 0:
        embed["description"] = _cut(embed["description"], len(embed["description"]) - over)
    return embed


def _length(embed: Mapping[str, Any]) -> int:
    texts = [embed["title"], embed["description"], embed["footer"]["text"]]
    texts += [text for field in embed["fields"] for text in (field["name"], field["value"])]
    return sum(units(text) for text in texts)


def _cut(text: str, limit: int) -> str:
    if units(text) <= limit:
        return text
    while units(text) > limit - 1:
        text = text[: len(text) - max(1, (units(text) - limit + 1) // 2)]
    # Not in the middle of an escape.
    return text.rstrip("\\") + "…"


def _line(value: Any) -> str:
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _plain(value: Any) -> str:
    """Text from outside as text: no markup, no mention, no link."""
    return escaped(_line(value))


# -- sending ----------------------------------------------------------------------------------------------------------

TOTAL_SECONDS = 60.0
"""Longest that one message is tried for, waiting included."""
_REQUEST_SECONDS = 10.0
_GONE = {(404, 10015): "Discord does not know this webhook", (401, 50027): "Discord refuses this webhook's token"}
_disabled: dict[str, str] = {}
_disabled_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Posted:
    """What became of a message."""

    state: Literal["sent", "failed", "disabled"]
    message_id: str = ""
    #: Why it was not sent; never with the URL in it.
    reason: str = ""


class _Again(Exception):
    """The request may be repeated, after ``seconds`` when Discord said so."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.seconds = seconds


def post(
    webhook_url: str,
    body: Mapping[str, Any],
    *,
    total_seconds: float = TOTAL_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Posted:
    """Send a message and wait until Discord has saved it; repeats on 429, 5xx and network errors. Never raises."""
    key = hashlib.sha256(webhook_url.encode()).hexdigest()
    with _disabled_lock:
        known = _disabled.get(key)
    if known:
        return Posted(state="disabled", reason=known)
    if not _is_http(webhook_url):
        return Posted(state="disabled", reason="discord.webhook_url is no http(s) URL")

    import httpx
    from tenacity import RetryError, Retrying, retry_if_exception_type, stop_before_delay, wait_exponential

    back_off = wait_exponential(multiplier=0.5, max=15)

    def wait(retry_state: Any) -> float:
        error = retry_state.outcome.exception()
        return error.seconds if error.seconds is not None else back_off(retry_state)

    try:
        with httpx.Client(timeout=_REQUEST_SECONDS, follow_redirects=False) as client:
            retrying = Retrying(
                retry=retry_if_exception_type(_Again),
                stop=stop_before_delay(total_seconds),
                wait=wait,
                sleep=sleep,
            )
            posted = retrying(_once, client, webhook_url, body)
    except RetryError as error:
        last = error.last_attempt.exception()
        return Posted(state="failed", reason=last.reason if isinstance(last, _Again) else "gave up")
    if posted.state == "disabled":
        with _disabled_lock:
            _disabled[key] = posted.reason
        log.error("discord webhook disabled until restart", reason=posted.reason, remedy="Correct discord.webhook_url")
    return posted


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _once(client: Any, webhook_url: str, body: Mapping[str, Any]) -> Posted:
    import httpx

    try:
        # Merged, since the URL may name a thread already.
        response = client.post(httpx.URL(webhook_url).copy_merge_params({"wait": "true"}), json=dict(body))
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError):
        return Posted(state="disabled", reason="discord.webhook_url is no http(s) URL")
    except httpx.TransportError as error:
        raise _Again(f"Discord cannot be reached ({type(error).__name__})") from None
    said = _json(response.content)
    if response.status_code in (200, 204):
        return Posted(state="sent", message_id=str(said.get("id", "")))
    if response.status_code == 429:
        raise _Again("Discord limits the rate", _retry_after(said, response.headers))
    if response.status_code >= 500:
        raise _Again(f"Discord answered {response.status_code}")
    code = said.get("code")
    gone = _GONE.get((response.status_code, code if isinstance(code, int) else 0))
    if gone or response.status_code in (401, 404):
        return Posted(state="disabled", reason=gone or f"Discord answered {response.status_code}")
    return Posted(state="failed", reason=f"Discord answered {response.status_code}, code {code}")


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _retry_after(said: Mapping[str, Any], headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: the body's float is exact, the header rounds up; ``None`` when neither is a number."""
    for value in (said.get("retry_after"), headers.get("retry-after"), headers.get("x-ratelimit-reset-after")):
        try:
            seconds = float(value) if value is not None and not isinstance(value, bool) else -1.0
        except (TypeError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def shown(body: Mapping[str, Any]) -> Sequence[str]:
    """The message as lines of text, for where it is shown instead of sent; what Markdown needs escaped is not here."""
    return [re.sub(r"\\([^A-Za-z0-9\s])", r"\1", line) for line in _lines_of(body)]


def _lines_of(body: Mapping[str, Any]) -> list[str]:
    lines = [str(body["content"])] if body.get("content") else []
    for embed in body.get("embeds") or ():
        lines += [str(embed.get("title", "")), *str(embed.get("description", "")).splitlines()]
        for entry in embed.get("fields") or ():
            lines += [f"{entry['name']}:", *(f"  {line}" for line in str(entry["value"]).splitlines())]
        if embed.get("url"):
            lines.append(str(embed["url"]))
    return lines

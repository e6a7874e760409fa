"""What a cell shows: readings, charts, the verdict, actions and guards as HTML displays.

Display only: nothing here reads from outside or decides anything. Whatever is shown was redacted when it was read.
"""

from __future__ import annotations

import html
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from runbook.result import RESULT_MIME, Findings, Reading

if TYPE_CHECKING:
    from runbook.reporting.charts import Chart


def reading(taken: Reading, caption: str) -> None:
    """Its rows, or why it is unknown."""
    from runbook.reporting.readings import reading_html

    _html(reading_html(taken, caption=caption))


def lock_tree(blockers: Reading) -> None:
    """Lock waits from the root down."""
    from runbook.diagnosis.locks import forest
    from runbook.reporting.readings import lock_tree_html

    _html(lock_tree_html(forest(blockers.rows).lines()))


def connections_chart(
    headroom: Mapping[str, Any] | None, sessions: Reading | None, *, threshold_share: float
) -> Chart | None:
    """Sessions by state against the limit; nothing when they are unknown."""
    from runbook.reporting.charts import connections_by_state

    if headroom is None or headroom["hidden_rows"] or sessions is None or not sessions.known:
        return None
    return connections_by_state(
        Counter("waiting for a lock" if s.get("wait_event_type") == "Lock" else str(s["state"]) for s in sessions.rows),
        usable=int(headroom["usable"]),
        max_connections=int(headroom["max_connections"]),
        threshold_share=threshold_share,
    )


def chart(name: str, *given: Any, **options: Any) -> Chart | None:
    """What ``runbook.reporting.<name>_chart.<name>_chart`` draws."""
    drawing: Chart | None = getattr(import_module(f"runbook.reporting.{name}_chart"), f"{name}_chart")(
        *given, **options
    )
    return drawing


def actions(findings: Findings | None, *, note: str = "") -> None:
    """The proposed actions with what to copy."""
    from runbook.reporting.readings import actions_html

    shown = actions_html([] if findings is None else findings.as_dict()["actions"])
    _html(shown + (f"<p>{html.escape(note)}</p>" if note else ""))


def order(wish: Mapping[str, Any], *, note: str) -> None:
    """What a person wanted to order, as a command to copy, and why it is not ordered from here."""
    targets = [word for one in wish["targets"] if one for word in ("-t", json.dumps(one, ensure_ascii=False))]
    words = ["runbook", "actions", "order", wish["run_id"], wish["kind"], *targets]
    words += ["--title", wish["title"]] if wish["title"] else []
    _html(
        f'<p role="status">{html.escape(note)} In a shell, once the run is in the archive (run.publish()):</p>'
        f"<pre>{html.escape(shlex.join(map(str, words)))}</pre>"
    )


def checks(rows: Sequence[Mapping[str, Any]]) -> None:
    """Guards that are or are not in place."""
    from runbook.reporting.tables import table_html

    words = {True: "yes", False: "no", None: "unknown"}
    _html(table_html([{**c, "holds": words[c["holds"]]} for c in rows], caption="Guards"))


def message(findings: Findings, runbook: str) -> None:
    """A draft for the incident channel."""
    from runbook.reporting.readings import message_draft

    _html(f"<pre>{html.escape(message_draft(findings.as_dict(), runbook))}</pre>")


def note(text: str) -> None:
    """A line."""
    _html(f"<p>{html.escape(text)}</p>")


def result(findings: Findings) -> None:
    """The findings, as people read them and as the engine takes them out of the notebook."""
    from IPython.display import display

    from runbook.reporting.fragment import findings_html

    plain = findings.as_dict()
    leading = [f"{v['cause']} {v['name']} ({v['tier']})" for v in plain["verdict"] if v["tier"] == "confirmed"]
    text = f"{findings.outcome}: {', '.join(leading) or 'no confirmed cause'}"
    display({RESULT_MIME: plain, "text/html": findings_html(plain), "text/plain": text}, raw=True)


def _html(text: str) -> None:
    from IPython.display import HTML, display

    display(HTML(text))

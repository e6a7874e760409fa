from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.notify.discord import message, shown
from tests.integration.dispatch.tiny import document

URL = "https://runbook.example/reports/20261123T072513042-k3f9qa7m"
TEXT = st.text(st.characters(), max_size=3000)


def units(text: str) -> int:
    return len(text.encode("utf-16-le", "replace")) // 2


def check_limits(body: dict[str, Any]) -> None:
    (embed,) = body["embeds"]
    assert 0 < units(embed["title"]) <= 256
    assert units(embed["description"]) <= 4096
    assert len(embed["fields"]) <= 25
    for field in embed["fields"]:
        assert 0 < units(field["name"]) <= 256
        assert 0 < units(field["value"]) <= 1024
    assert units(body.get("content", "")) <= 2000
    texts = [embed["title"], embed["description"], embed["footer"]["text"]]
    texts += [text for field in embed["fields"] for text in (field["name"], field["value"])]
    assert sum(map(units, texts)) <= 6000


def test_a_message_tells_outcome_cause_identity_gaps_and_actions() -> None:
    body = message(document("20261123T072513042-k3f9qa7m"), URL)
    (embed,) = body["embeds"]
    text = "\n".join(shown(body)).replace("\\", "")
    for part in ("Diagnosed", "P01", "confirmed", "explains 80%", "api-leaky", "Not checked: 1", "Terminate 24"):
        assert part in text
    assert embed["url"] == URL
    assert body["allowed_mentions"] == {"parse": []}
    assert "content" not in body
    check_limits(body)


@given(text=TEXT, many=st.integers(0, 60), state=st.sampled_from(["succeeded", "failed", "interrupted"]))
def test_no_text_breaks_a_limit(text: str, many: int, state: str) -> None:
    result = document("r", state=state)
    result["title"] = result["impact"] = result["run_id"] = text
    result["alert"] = {"name": text, "service": text}
    result["error"] = {"cell": 1, "name": text, "message": text}
    result["verdict"] = [{**result["verdict"][0], "name": text, "details": {text[:50]: text}} for _ in range(many)]
    result["actions"] = [{"title": text}] * many
    result["not_checked"] = [{"source": text + str(n)} for n in range(many)]
    body = message(result, URL, "<@&1234>")
    check_limits(body)
    json.dumps(body, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "hostile",
    [
        "@everyone", "@here", "<@123>", "<@&123>", "<#123>", "**bold**", "[text](https://evil.example)", "`code`",
        "||spoiler||", "# heading", "> quote", "https://evil.example", "~~gone~~", "<https://evil.example>",
    ],
)  # fmt: skip
def test_text_from_outside_neither_rings_nor_formats(hostile: str) -> None:
    result = document("r")
    result["alert"] = {"name": hostile, "service": hostile}
    result["impact"] = result["title"] = hostile
    result["verdict"][0]["details"] = {"application_name": hostile}
    text = json.dumps(message(result, URL)["embeds"][0] | {"url": ""}, ensure_ascii=False)
    assert re.search(r"(?<!\\)" + re.escape(hostile), text.replace("\\\\", "\\")) is None
    assert "https://evil" not in text


@pytest.mark.parametrize(
    ("mention", "allowed"),
    [
        ("", {"parse": []}),
        ("<@&42>", {"parse": [], "roles": ["42"]}),
        ("<@42>", {"parse": [], "users": ["42"]}),
        ("@here", {"parse": ["everyone"]}),
        ("oncall please", {"parse": []}),
    ],
)
def test_only_the_configured_mention_may_ring(mention: str, allowed: dict[str, Any]) -> None:
    body = message(document("r"), URL, mention)
    assert body["allowed_mentions"] == allowed
    assert body.get("content", "") == mention


def test_a_run_that_failed_says_so_first() -> None:
    result = document("r", state="failed") | {"error": {"cell": 4, "name": "KernelDied", "message": "killed"}}
    body = message(result, URL)
    assert body["embeds"][0]["title"].startswith("Run failed")
    assert "in cell 4" in body["embeds"][0]["description"]


def test_a_message_says_how_the_run_is_opened_and_who_worked_on_it() -> None:
    run = "20261123T072513042-k3f9qa7m"
    text = message(document(run), URL)["embeds"][0]["description"]
    assert f"`runbook jupyter {run}`" in text
    assert "Worked through" not in text
    link = f"http://127.0.0.1:8341/runbook/runs/{run}"
    linked = message(document(run), URL, jupyter_url=link)["embeds"][0]["description"]
    assert f"[Open in JupyterLab]({link}), or `runbook jupyter {run}`" in linked
    published = document(run) | {"revision": {"number": 2, "by": "person:ada", "worked_as": run}}
    assert "Worked through by ada, revision 2" in message(published, URL)["embeds"][0]["description"]
    assert "runbook jupyter" not in str(message(document(run), ""))
    assert "runbook jupyter" not in str(message(document("`@here`"), URL))


def test_a_run_without_a_report_or_findings_still_makes_a_message() -> None:
    body = message({"run_id": "r", "runbook": "db", "state": "interrupted"}, "")
    assert "There is no report" in body["embeds"][0]["description"]
    assert "url" not in body["embeds"][0]
    check_limits(body)

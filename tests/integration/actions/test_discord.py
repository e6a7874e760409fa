"""A message to the simulated Discord: posted once, nobody mentioned, deleted again."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runbook.actions.plan import Order, Refused
from tests.contract.simulator import Simulator
from tests.integration.actions.desk import ME, Desk, order

KIND = "discord.post"
TARGET = {"channel": "incidents", "content": "High error rate: 12 % fail.\n@everyone see https://evil.example **now**"}


@pytest.fixture
def desk(vendors: Simulator, database: str, data: Path) -> Desk:
    return Desk({"store": {"url": database}, "discord": vendors.settings["discord"]})


def messages(vendors: Simulator) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = vendors.vendors.state("discord")["messages"]
    return found


def _refused(desk: Desk, asked: Order, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        desk.do(lambda desk: desk.acting.plan(asked, ME))


def test_a_message_is_posted_and_deleted_again(desk: Desk, vendors: Simulator) -> None:
    seen: list[dict[str, Any]] = []
    desk.symptom = lambda: seen.extend(messages(vendors)) or 0.0  # type: ignore[func-returns-value]
    effects, verified, undone = desk.do(lambda desk: desk.there_and_back(order(KIND, [TARGET])))
    assert [effect.done for effect in (*effects, *undone)] == [True, True]
    (message,) = seen
    assert (message["id"], verified["holds"], messages(vendors)) == (effects[0].made, True, [])


def test_what_comes_from_outside_is_no_mention_no_link_and_no_markup(desk: Desk, vendors: Simulator) -> None:
    desk.do(lambda desk: desk.applied(order(KIND, [TARGET])))
    (body,) = vendors.vendors.state("discord")["received"]
    assert body["allowed_mentions"] == {"parse": []}
    assert "@everyone" not in body["content"]
    assert "https://" not in body["content"]
    assert r"\*\*now\*\*" in body["content"]
    assert "\n" in body["content"]


def test_the_webhooks_address_is_in_no_log(
    desk: Desk, vendors: Simulator, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG, logger="httpx"):
        desk.do(lambda desk: desk.there_and_back(order(KIND, [TARGET])))
    out = capfd.readouterr()
    assert vendors.known.discord not in caplog.text + out.out + out.err


def test_a_webhook_that_leads_elsewhere_since_the_plan_is_left_alone(desk: Desk, vendors: Simulator) -> None:
    elsewhere = partial(vendors.vendors.change, "discord", channel="77")
    effect = desk.do(lambda desk: desk.overtaken(order(KIND, [TARGET]), elsewhere))
    assert (effect.done, messages(vendors)) == (False, [])


def test_a_message_that_somebody_has_deleted_or_edited_is_left_alone(desk: Desk, vendors: Simulator) -> None:
    async def steps(desk: Desk, change: Any) -> Any:
        asked = order(KIND, [TARGET], id=f"r:{change}")
        await desk.applied(asked)
        (message,) = messages(vendors)
        vendors.vendors.change("discord", messages=[] if change == "gone" else [message | {"content": "corrected"}])
        return (await desk.acting.undo(asked, ME))[0]

    desk.plain["actions"] = {"cooldown_minutes": 0}
    assert "is gone" in desk.do(lambda desk: steps(desk, "gone")).said
    edited = desk.do(lambda desk: steps(desk, "edited"))
    assert (edited.done, len(messages(vendors))) == (False, 1)


def test_a_message_whose_answer_got_lost_is_not_posted_twice(desk: Desk, vendors: Simulator) -> None:
    asked = order(KIND, [TARGET])

    async def steps(desk: Desk) -> Any:
        await desk.approved(asked)
        vendors.vendors.change("discord", mode="server_error", times=1)
        effects = await desk.acting.apply(asked, ME)
        return effects, await desk.acting.verify(asked, ME)

    (effect,), verified = desk.do(steps)
    assert (effect.done, "may have happened" in effect.said, verified["holds"]) == (True, True, None)
    assert len(vendors.vendors.state("discord")["received"]) <= 1


def test_another_message_may_follow_and_the_same_one_not_at_once(desk: Desk, vendors: Simulator) -> None:
    async def steps(desk: Desk) -> None:
        await desk.applied(order(KIND, [TARGET], id="r:first"))
        await desk.applied(order(KIND, [{"content": "mended"}], id="r:second"))
        with pytest.raises(Refused, match="was acted on at"):
            await desk.applied(order(KIND, [TARGET], id="r:third"))

    desk.do(steps)
    assert len(messages(vendors)) == 2


@pytest.mark.parametrize(
    ("target", "reason"),
    [({"channel": "incidents"}, "content is needed"), ({"content": "a" * 2001}, "2001 characters")],
)
def test_what_cannot_be_posted_is_refused(desk: Desk, target: dict[str, str], reason: str) -> None:
    _refused(desk, order(KIND, [target]), reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: "", "discord.webhook_url is not set"),
        (lambda url: url[:-4] + "0000", "answered 401"),
        (lambda url: "file:///etc/passwd", "no http"),
        (lambda url: "ftp://discord.example/x", "no http"),
        (lambda url: url.replace(url.split("/")[2], "127.0.0.1:1"), "refused"),
    ],
    ids=["none", "wrong", "a file", "ftp", "nobody there"],
)
def test_a_webhook_that_is_none_is_refused_and_not_shown(desk: Desk, change: Any, reason: str) -> None:
    url = desk.plain["discord"]["webhook_url"]
    desk.plain["discord"] = {"webhook_url": change(url) or None}
    with pytest.raises(Refused, match=f"(?i){reason}") as caught:
        desk.do(lambda desk: desk.acting.plan(order(KIND, [TARGET]), ME))
    assert url.rpartition("/")[2][:20] not in str(caught.value)

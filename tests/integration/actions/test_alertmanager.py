"""Silences on a real Alertmanager: one alert, for a while, and expired again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from runbook.actions.plan import Order, Refused
from tests.integration.actions.desk import ME, Desk, order
from tests.support import free_port, require_program, wait_until

KIND = "alertmanager.silence"
LABELS = {"alertname": "ConnectionsHigh", "service": "api", "path": 'C:\\tmp "x"'}
TARGET = {"labels": LABELS, "minutes": 30, "comment": "a known leak, being mended"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = require_program("prometheus-alertmanager", package="prometheus-alertmanager")
    directory = tmp_path_factory.mktemp("alertmanager")
    (directory / "config.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    url = f"http://127.0.0.1:{free_port()}"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={directory / 'config.yml'}", f"--storage.path={directory / 'data'}",
             f"--web.listen-address={url.removeprefix('http://')}", "--cluster.listen-address="],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(ready, what="Alertmanager")
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def desk(server: str, database: str, data: Path) -> Iterator[Desk]:
    fire(server, LABELS)
    yield Desk({"store": {"url": database}, "alertmanager": {"url": server}})
    for silence in silences(server):
        httpx.delete(f"{server}/api/v2/silence/{silence['id']}", trust_env=False)
    for one in alerts(server):
        fire(server, one["labels"], over=True)


def fire(server: str, labels: dict[str, str], *, since: str = "2026-11-23T07:25:13Z", over: bool = False) -> None:
    alert = {"labels": labels, "startsAt": since}
    if over:
        alert["endsAt"] = datetime.now(UTC).isoformat()
    assert httpx.post(f"{server}/api/v2/alerts", json=[alert], trust_env=False).status_code == 200
    wait_until(lambda: (labels in [one["labels"] for one in alerts(server)]) != over, what="the alert")


def alerts(server: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{server}/api/v2/alerts", trust_env=False).json()
    return found


def silences(server: str) -> list[dict[str, Any]]:
    """Those that are not expired."""
    found = httpx.get(f"{server}/api/v2/silences", trust_env=False).json()
    return [one for one in found if one["status"]["state"] != "expired"]


def muted(server: str) -> list[str]:
    """Alerts of which nobody is notified."""
    return [one["labels"]["alertname"] for one in alerts(server) if one["status"]["state"] == "suppressed"]


def silence(server: str, labels: dict[str, str]) -> None:
    """As somebody else would."""
    now = datetime.now(UTC)
    matchers = [{"name": name, "value": value, "isRegex": False} for name, value in labels.items()]
    body = {"matchers": matchers, "comment": "mine", "createdBy": "bob", "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(hours=1)).isoformat()}  # fmt: skip
    answer = httpx.post(f"{server}/api/v2/silences", json=body, trust_env=False)
    assert answer.status_code == 200, answer.text


def _refused(desk: Desk, asked: Order, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        desk.do(lambda desk: desk.acting.plan(asked, ME))


def test_one_alert_is_silenced_for_a_while_and_heard_again(desk: Desk, server: str) -> None:
    fire(server, {"alertname": "DiskFull", "service": "api"})
    seen: list[Any] = []
    desk.symptom = lambda: seen.extend([muted(server), silences(server)]) or 0.0  # type: ignore[func-returns-value]
    effects, verified, undone = desk.do(lambda desk: desk.there_and_back(order(KIND, [TARGET])))
    assert [effect.done for effect in (*effects, *undone)] == [True, True]
    names, (made,) = seen
    assert (names, verified["holds"]) == (["ConnectionsHigh"], True)
    assert {m["name"]: m["value"] for m in made["matchers"]} == LABELS
    assert not any(m["isRegex"] for m in made["matchers"])
    assert (made["createdBy"], "being mended" in made["comment"], made["id"]) == (
        f"runbook for {ME}", True, effects[0].made,
    )  # fmt: skip
    lasts = datetime.fromisoformat(made["endsAt"]) - datetime.now(UTC)
    assert timedelta(minutes=29) < lasts <= timedelta(minutes=30)
    assert silences(server) == muted(server) == []


def _over(server: str) -> None:
    fire(server, LABELS, over=True)


def _silenced(server: str) -> None:
    silence(server, LABELS)


def _another(server: str) -> None:
    fire(server, {**LABELS, "instance": "a1"})


@pytest.mark.parametrize("change", [_over, _silenced, _another])
def test_what_has_changed_since_the_plan_is_left_alone(desk: Desk, server: str, change: Any) -> None:
    effect = desk.do(lambda desk: desk.overtaken(order(KIND, [TARGET]), lambda: change(server)))
    assert (effect.done, [s for s in silences(server) if s["createdBy"] != "bob"]) == (False, [])


def test_a_silence_that_somebody_has_changed_since_stays(desk: Desk, server: str) -> None:
    asked = order(KIND, [TARGET])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        (made,) = silences(server)
        longer = {name: made[name] for name in ("id", "matchers", "comment", "createdBy", "startsAt")}
        until = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
        assert httpx.post(f"{server}/api/v2/silences", json=longer | {"endsAt": until}, trust_env=False).is_success
        return await desk.acting.undo(asked, ME)

    (effect,) = desk.do(steps)
    assert (effect.done, "changed its end" in effect.said, muted(server)) == (False, True, ["ConnectionsHigh"])


def test_a_silence_that_is_expired_already_is_left_alone(desk: Desk, server: str) -> None:
    asked = order(KIND, [TARGET])

    async def steps(desk: Desk) -> Any:
        (made,) = await desk.applied(asked)
        httpx.delete(f"{server}/api/v2/silence/{made.made}", trust_env=False)
        return await desk.acting.verify(asked, ME), await desk.acting.undo(asked, ME)

    verified, (effect,) = desk.do(steps)
    assert (verified["holds"], effect.done) == (False, False)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({**TARGET, "minutes": 121}, "not between 0 and 120"),
        ({**TARGET, "minutes": 0}, "not between 0 and 120"),
        ({**TARGET, "minutes": "all day"}, "not between 0 and 120"),
        ({**TARGET, "labels": {"alertname": "ConnectionsHigh"}}, "exactly these labels"),
        ({**TARGET, "labels": {**LABELS, "service": ".*"}}, "exactly these labels"),
        ({**TARGET, "labels": {"service": "api"}}, "an alertname are needed"),
        ({"minutes": 5}, "an alertname are needed"),
    ],
)
def test_nothing_wider_or_longer_than_one_alert_for_two_hours(
    desk: Desk, server: str, target: dict[str, Any], reason: str
) -> None:
    _refused(desk, order(KIND, [target]), reason)
    assert silences(server) == []


def test_what_is_silenced_already_or_stands_for_others_is_refused(desk: Desk, server: str) -> None:
    silence(server, LABELS)
    _refused(desk, order(KIND, [TARGET]), "silenced already")
    _another(server)
    _refused(desk, order(KIND, [TARGET]), "1 other alerts")


def test_an_alert_whose_labels_are_not_shown_is_silenced_by_its_fingerprint(desk: Desk, server: str) -> None:
    labels = {**LABELS, "tenant": "Canary-tenant-7"}
    fire(server, LABELS, over=True)
    fire(server, labels)
    (fingerprint,) = [one["fingerprint"] for one in alerts(server) if one["labels"] == labels]
    asked = order(KIND, [{"fingerprint": fingerprint, "labels": {"service": "api"}, "minutes": 30}])

    async def steps(desk: Desk) -> Any:
        (effect,) = await desk.applied(asked)
        (made,) = silences(server)
        verified, undone = await desk.acting.verify(asked, ME), await desk.acting.undo(asked, ME)
        return effect, made, verified, undone, await desk.log.of(asked.id)

    effect, made, verified, undone, entries = desk.do(steps)
    assert {m["name"]: m["value"] for m in made["matchers"]} == labels
    assert (effect.done, verified["holds"], undone[0].done, silences(server)) == (True, True, True, [])
    assert "Canary-tenant-7" not in str(entries)


def test_a_fingerprint_of_which_other_alerts_are_more_is_refused(desk: Desk, server: str) -> None:
    (fingerprint,) = [one["fingerprint"] for one in alerts(server) if one["labels"] == LABELS]
    _another(server)
    _refused(desk, order(KIND, [{"fingerprint": fingerprint}]), "1 other alerts")
    _refused(desk, order(KIND, [{"fingerprint": "0" * 16}]), "exactly this fingerprint")


def test_no_policy_silences(desk: Desk, server: str) -> None:
    asked = order(KIND, [TARGET])
    permit = {"kind": KIND, "runbook": asked.runbook, "cause": asked.cause}
    desk.plain["actions"] = {"policy": [permit]}
    assert desk.do(lambda desk: desk.acting.by_policy(asked, "worker-1")) is None
    assert silences(server) == []


@pytest.mark.parametrize(("url", "reason"), [("", "alertmanager.url is not set"), ("http://127.0.0.1:1", "refused")])
def test_none_that_answers_is_refused(desk: Desk, url: str, reason: str) -> None:
    desk.plain["alertmanager"]["url"] = url
    _refused(desk, order(KIND, [TARGET]), f"(?i){reason}")

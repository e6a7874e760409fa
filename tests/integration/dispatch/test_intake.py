from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from runbook import catalog
from runbook.dispatch.incidents import prepare
from runbook.dispatch.intake import Intake
from runbook.dispatch.queue import Queue
from runbook.dispatch.sources import parse
from runbook.errors import StoreError
from runbook.redaction import Redactor
from runbook.settings import Settings
from runbook.store import open_store
from runbook.store.rows import Receipt
from runbook.store.store import Store

START = "2026-11-23T07:25:13.123456789Z"


def alert(
    status: str = "firing", fingerprint: str = "f1", starts_at: str | None = START, **labels: str
) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": "ConnectionsHigh", "severity": "page", "service": "api"} | labels,
        "annotations": {"summary": "slots run out"},
        "startsAt": starts_at,
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": fingerprint,
    }


def webhook(*alerts: dict[str, Any]) -> bytes:
    return json.dumps({"version": "4", "status": "firing", "receiver": "runbook", "alerts": list(alerts)}).encode()


class House:
    """The intake without HTTP."""

    def __init__(self, settings: Settings, store: Store, queue: Queue) -> None:
        self.settings = settings
        self.store = store
        self.intake = Intake(store, queue.defer)

    async def post(self, body: bytes, source: str = "alertmanager") -> list[Receipt]:
        runbooks = {r.name: r for r in catalog.load_all()}
        redactor = Redactor(self.settings.secrets())
        return await self.intake.submit([prepare(a, runbooks, self.settings, redactor) for a in parse(source, body)])

    async def rows(self, query: str) -> list[Any]:
        async with self.store.connection() as connection:
            return await (await connection.execute(query.encode())).fetchall()


def within(settings: Settings, act: Callable[[House], Awaitable[None]]) -> None:
    async def use() -> None:
        async with open_store(settings) as store, Queue(store) as queue:
            await act(House(settings, store, queue))

    asyncio.run(use())


def test_a_firing_alert_leaves_alert_incident_run_and_job(settings: Settings) -> None:
    async def act(house: House) -> None:
        (receipt,) = await house.post(webhook(alert()))
        assert receipt.fate == "queued"
        row = await house.store.runs.get(receipt.run_id or "")
        assert row is not None
        assert (row.state, row.runbook, row.severity, row.service) == ("queued", "connections", "page", "api")
        assert row.parameters["service"] == "api"
        assert row.alert_id == receipt.alert_id
        assert await house.rows("SELECT args->>'run_id' FROM procrastinate_jobs") == [(receipt.run_id,)]
        assert await house.rows("SELECT key, resolved_at FROM incidents") == [("connections/api", None)]

    within(settings, act)


def test_the_alerts_start_becomes_the_parameter_that_anchors_the_window(settings: Settings) -> None:
    async def act(house: House) -> None:
        (receipt,) = await house.post(webhook(alert(starts_at="2026-11-23T09:25:13+02:00")))
        row = await house.store.runs.get(receipt.run_id or "")
        assert row is not None
        assert row.parameters["alert_at"] == "2026-11-23T07:25:13Z"

    within(settings, act)


def test_the_same_firing_is_a_duplicate_with_the_first_ones_run(settings: Settings) -> None:
    async def act(house: House) -> None:
        (first,) = await house.post(webhook(alert()))
        (second,) = await house.post(webhook(alert()))
        assert (second.fate, second.alert_id, second.run_id) == ("duplicate", first.alert_id, first.run_id)
        assert await house.rows("SELECT received FROM alerts") == [(2,)]

    within(settings, act)


def test_the_same_alert_twice_in_one_message_runs_once(settings: Settings) -> None:
    async def act(house: House) -> None:
        receipts = await house.post(webhook(alert(), alert()))
        assert [r.fate for r in receipts] == ["queued", "duplicate"]
        assert len({r.run_id for r in receipts}) == 1
        assert await house.rows("SELECT count(*) FROM runs") == [(1,)]

    within(settings, act)


def test_a_later_firing_of_the_same_alert_runs_again(settings: Settings) -> None:
    async def act(house: House) -> None:
        (first,) = await house.post(webhook(alert()))
        (later,) = await house.post(webhook(alert(starts_at="2026-11-24T07:25:13Z")))
        assert later.fate == "queued"
        assert later.run_id != first.run_id

    within(settings, act)


@pytest.mark.parametrize("processes", [1, 3])
def test_fifty_concurrent_posts_of_one_firing_give_exactly_one_run(settings: Settings, processes: int) -> None:
    async def use() -> None:
        async with open_store(settings) as store, Queue(store) as queue:
            houses = [House(settings, store, queue) for _ in range(processes)]
            answers = await asyncio.gather(*(houses[n % processes].post(webhook(alert())) for n in range(50)))
            receipts = [receipt for (receipt,) in answers]
            assert sorted(r.fate for r in receipts) == ["duplicate"] * 49 + ["queued"]
            assert len({r.run_id for r in receipts}) == 1
            assert await houses[0].rows("SELECT count(*) FROM runs") == [(1,)]
            assert await houses[0].rows("SELECT count(*) FROM procrastinate_jobs") == [(1,)]

    asyncio.run(use())


def test_many_alerts_from_many_sides_neither_deadlock_nor_get_lost(settings: Settings) -> None:
    async def use() -> None:
        async with open_store(settings) as store, Queue(store) as queue:
            houses = [House(settings, store, queue) for _ in range(3)]
            fingerprints = [f"f{n}" for n in range(40)]
            bodies = [
                webhook(*(alert(s, f, service=f"s{int(f[1:]) % 5}") for f in order))
                for order in (fingerprints, fingerprints[::-1], fingerprints[20:] + fingerprints[:20])
                for s in ("firing", "resolved")
            ]
            await asyncio.gather(*(houses[n % 3].post(body) for n, body in enumerate(bodies * 3)))
            assert await houses[0].rows("SELECT count(*) FROM runs") == [(40,)]
            assert await houses[0].rows(
                "SELECT count(*) FROM alerts WHERE status = 'firing' AND resolved_at IS NULL"
            ) == [(0,)]
            assert await houses[0].rows("SELECT count(*) FROM incidents WHERE resolved_at IS NULL") == [(0,)]

    asyncio.run(use())


def test_resolved_closes_the_incident_that_it_opened_and_starts_nothing(settings: Settings) -> None:
    async def act(house: House) -> None:
        await house.post(webhook(alert(), alert(fingerprint="f2")))
        assert await house.rows("SELECT count(*) FROM incidents") == [(1,)]
        (receipt,) = await house.post(webhook(alert("resolved")))
        assert (receipt.fate, receipt.run_id) == ("resolved", None)
        assert await house.rows("SELECT count(*) FROM incidents WHERE resolved_at IS NULL") == [(1,)]
        await house.post(webhook(alert("resolved", fingerprint="f2")))
        assert await house.rows("SELECT count(*) FROM incidents WHERE resolved_at IS NULL") == [(0,)]
        assert await house.rows("SELECT count(*) FROM runs") == [(2,)]
        (again,) = await house.post(webhook(alert("resolved")))
        assert again.fate == "duplicate"

    within(settings, act)


def test_a_firing_that_arrives_after_its_end_leaves_no_open_incident(settings: Settings) -> None:
    async def act(house: House) -> None:
        await house.post(webhook(alert("resolved")))
        (late,) = await house.post(webhook(alert()))
        assert late.fate == "queued"
        assert await house.rows("SELECT count(*) FROM incidents WHERE resolved_at IS NULL") == [(0,)]

    within(settings, act)


def test_an_unrouted_alert_is_kept_and_listed(settings: Settings) -> None:
    async def act(house: House) -> None:
        (receipt,) = await house.post(webhook(alert(alertname="NobodyKnows")))
        assert (receipt.fate, receipt.run_id) == ("unrouted", None)
        (row,) = await house.store.alerts.listed(fate="unrouted")
        assert (row["id"], row["name"]) == (receipt.alert_id, "NobodyKnows")
        assert await house.rows("SELECT count(*) FROM runs") == [(0,)]

    within(settings, act)


def test_a_label_that_does_not_fit_is_noted_and_the_default_used(settings: Settings) -> None:
    async def act(house: House) -> None:
        (receipt,) = await house.post(webhook(alert(service="api; rm -rf /", samples="9000")))
        row = await house.store.runs.get(receipt.run_id or "")
        assert row is not None
        assert (row.parameters["service"], row.parameters["samples"]) == ("", 1)
        assert row.alert is not None
        assert len(row.alert["notes"]) == 2
        assert "9000" not in json.dumps(row.alert["notes"])

    within(settings, act)


def test_messages_without_a_start_join_the_firing_that_is_open(settings: Settings) -> None:
    async def act(house: House) -> None:
        body = json.dumps({"name": "ConnectionsHigh", "service": "api"}).encode()
        first, *others = await asyncio.gather(*(house.post(body, "generic") for _ in range(5)))
        assert first[0].fate == "queued"
        assert {r.fate for (r,) in others} == {"duplicate"}
        over = json.dumps({"name": "ConnectionsHigh", "service": "api", "status": "resolved"}).encode()
        assert (await house.post(over, "generic"))[0].fate == "resolved"
        assert await house.rows("SELECT count(*) FROM incidents WHERE resolved_at IS NULL") == [(0,)]
        assert (await house.post(body, "generic"))[0].fate == "queued"

    within(settings, act)


def test_what_postgres_cannot_hold_is_kept_in_a_form_that_it_can(settings: Settings) -> None:
    async def act(house: House) -> None:
        hostile = alert(note="nul \x00, half \ud83d, bell \x07", service="a\x00b")
        (receipt,) = await house.post(webhook(hostile))
        assert receipt.fate == "queued"

    within(settings, act)


def test_no_secret_of_an_alert_is_in_the_store(settings: Settings, database: str) -> None:
    secrets = ["hunter2hunter2", "ghp_0123456789abcdefghij0123456789abcdef", "xoxb-123456789012-abcdefghijkl"]

    async def act(house: House) -> None:
        hostile = alert(password=secrets[0], instance=f"postgres://u:{secrets[0]}@db/x", service="api")
        hostile["annotations"] = {"summary": f"Authorization: Bearer {secrets[1]}", "token": secrets[2]}
        hostile["generatorURL"] = f"http://prometheus/?token={secrets[1]}"
        (receipt,) = await house.post(webhook(hostile))
        assert receipt.fate == "queued"

    within(settings, act)
    with psycopg.connect(database) as connection:
        for table in ("alerts", "runs", "incidents", "procrastinate_jobs"):
            text = str(connection.execute(f"SELECT t::text FROM runbook.{table} AS t").fetchall())
            assert [s for s in secrets if s in text] == []


def test_an_alert_is_not_accepted_when_its_job_cannot_be_deferred(settings: Settings) -> None:
    async def act(house: House) -> None:
        async with house.store.connection() as connection:
            await connection.execute("ALTER TABLE procrastinate_jobs RENAME TO elsewhere")
        with pytest.raises(StoreError):
            await house.post(webhook(alert()))
        assert await house.rows("SELECT count(*) FROM alerts") == [(0,)]
        async with house.store.connection() as connection:
            await connection.execute("ALTER TABLE elsewhere RENAME TO procrastinate_jobs")
        (receipt,) = await house.post(webhook(alert()))
        assert receipt.fate == "queued"

    within(settings, act)


def test_an_alert_that_postgres_refuses_does_not_spoil_the_others_of_its_batch(settings: Settings) -> None:
    async def act(house: House) -> None:
        runbooks = {r.name: r for r in catalog.load_all()}
        good = [prepare(a, runbooks, settings, Redactor()) for a in parse("alertmanager", webhook(alert()))]
        (bad,) = parse("alertmanager", webhook(alert(fingerprint="f2")))
        object.__setattr__(bad, "raw", {"text": "\x00"})
        answers = await asyncio.gather(
            house.intake.submit(good),
            house.intake.submit([prepare(bad, runbooks, settings, Redactor())]),
            house.intake.submit([prepare(bad, runbooks, settings, Redactor())]),
            return_exceptions=True,
        )
        assert isinstance(answers[0], list)
        assert [type(a) for a in answers[1:]] == [StoreError, StoreError]

    within(settings, act)

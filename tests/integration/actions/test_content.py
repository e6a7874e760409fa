"""What writes rows of a real table ``content``: to where their videos are, back again, and never over somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbook.actions.plan import Order, Refused
from runbook.sandbox import Sandbox
from tests.integration.actions.desk import ME, Desk, order

RESYNC = "content.resync"
MADE = datetime.now(UTC) - timedelta(minutes=30)
LOST = ("content-1", "content-2")
"""Rows that stand in ``PROCESSING`` from the beginning."""


@pytest.fixture
def desk(patient: Sandbox, database: str, data: Path) -> Desk:
    return Desk({**patient.settings(), "store": {"url": database}})


@pytest.fixture(autouse=True)
def videos(patient: Sandbox) -> Iterator[None]:
    """Their videos are ready at Mux; the table is as before when the test is done."""
    with patient.superuser() as admin:
        before = admin.execute('SELECT id, status, "updatedAt" FROM content WHERE id = ANY(%s)', ([*LOST],)).fetchall()
    _say(patient, "ready")
    yield
    patient.vendors.reset("mux")
    with patient.superuser() as admin:
        admin.execute('ALTER TABLE content ALTER "updatedAt" TYPE timestamp(3)')
        for row, status, at in before:
            admin.execute('UPDATE content SET status = %s, "updatedAt" = %s WHERE id = %s', (status, at, row))


def _say(patient: Sandbox, status: str) -> None:
    made = [
        {"id": f"asset-{row}", "status": status, "created_at": MADE.isoformat(), "passthrough": f"video:{row}"}
        for row in LOST
    ]
    patient.vendors.change("mux", assets=made)


def stored(patient: Sandbox, row: str) -> tuple[str, str]:
    with patient.superuser() as admin:
        found = admin.execute('SELECT status::text, "updatedAt"::text FROM content WHERE id = %s', (row,)).fetchone()
    assert found is not None
    return found[0], found[1]


def seen(patient: Sandbox, row: str, **more: Any) -> dict[str, Any]:
    """A row as a run names it, with the video that speaks for it."""
    status, at = stored(patient, row)
    return {"id": row, "status": status, "updated_at": at, "to": "READY", "provider": "mux",
            "video_id": f"asset-{row}", "video_created_at": MADE.isoformat()} | more  # fmt: skip


def refused(desk: Desk, asked: Order, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        desk.do(lambda desk: desk.acting.plan(asked, ME))


def test_rows_get_the_status_of_their_videos_and_their_own_again(desk: Desk, patient: Sandbox) -> None:
    before = [stored(patient, row) for row in LOST]
    asked = order(RESYNC, [seen(patient, row) for row in LOST], cause="V10")
    desk.symptom = lambda: float(stored(patient, LOST[0])[0] == "PROCESSING")

    async def steps(desk: Desk) -> Any:
        plan = await desk.acting.plan(asked, ME)
        await desk.acting.approve(asked.id, plan.digest, ME)
        effects = await desk.acting.apply(asked, ME)
        now = [stored(patient, row) for row in LOST]
        return plan, effects, now, await desk.acting.verify(asked, ME), await desk.acting.undo(asked, ME)

    plan, effects, now, verified, undone = desk.do(steps)
    assert [effect.done for effect in effects + undone] == [True] * 4
    assert [status for status, _ in now] == ["READY"] * 2
    written = datetime.fromisoformat(now[0][1]).replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - written).total_seconds()) < 60
    assert (verified["verdict"], verified["holds"]) == ("fixed", True)
    assert [stored(patient, row) for row in LOST] == before
    assert plan.reversible


def test_a_row_that_was_written_between_plan_and_apply_stays_as_it_is(desk: Desk, patient: Sandbox) -> None:
    asked = order(RESYNC, [seen(patient, row) for row in LOST])

    async def steps(desk: Desk) -> Any:
        await desk.approved(asked)
        with patient.superuser() as admin:
            admin.execute("UPDATE content SET \"updatedAt\" = timezone('UTC', now()) WHERE id = %s", (LOST[0],))
            admin.execute("UPDATE content SET status = 'FAILED' WHERE id = %s", (LOST[1],))
        return await desk.acting.apply(asked, ME), await desk.events(asked)

    effects, events = desk.do(steps)
    assert [effect.done for effect in effects] == [False, False]
    assert [stored(patient, row)[0] for row in LOST] == ["PROCESSING", "FAILED"]
    assert events[-1] == "refused"


def test_a_row_that_somebody_holds_keeps_all_of_them_from_being_written(desk: Desk, patient: Sandbox) -> None:
    asked = order(RESYNC, [seen(patient, row) for row in LOST])

    async def steps(desk: Desk) -> None:
        await desk.approved(asked)
        with psycopg.connect(patient.dsn("web")) as holder:
            holder.execute("SELECT FROM content WHERE id = %s FOR UPDATE", (LOST[1],))
            await desk.acting.apply(asked, ME)

    with pytest.raises(Refused, match="lock"):
        desk.do(steps)
    assert [stored(patient, row)[0] for row in LOST] == ["PROCESSING"] * 2


def test_a_row_that_was_written_since_is_not_put_back(desk: Desk, patient: Sandbox) -> None:
    asked = order(RESYNC, [seen(patient, row) for row in LOST])

    async def steps(desk: Desk) -> Any:
        await desk.applied(asked)
        with patient.superuser() as admin:
            admin.execute("UPDATE content SET status = 'FAILED' WHERE id = %s", (LOST[0],))
        return await desk.acting.undo(asked, ME)

    undone = desk.do(steps)
    assert [effect.done for effect in undone] == [False, True]
    assert [stored(patient, row)[0] for row in LOST] == ["FAILED", "PROCESSING"]


def test_the_time_of_a_column_with_a_zone_is_the_same_moment(desk: Desk, patient: Sandbox) -> None:
    with patient.superuser() as admin:
        admin.execute("SET timezone = 'UTC'")
        admin.execute('ALTER TABLE content ALTER "updatedAt" TYPE timestamptz')
        (at,) = admin.execute('SELECT "updatedAt"::text FROM content WHERE id = %s', (LOST[0],)).fetchone() or ("",)
    asked = order(RESYNC, [seen(patient, LOST[0], updated_at=at)])
    before = stored(patient, LOST[0])

    async def steps(desk: Desk) -> Any:
        (effect,) = await desk.applied(asked)
        with patient.superuser() as admin:
            row = admin.execute('SELECT "updatedAt" FROM content WHERE id = %s', (LOST[0],)).fetchone()
        return effect, row, await desk.acting.undo(asked, ME)

    effect, row, (undone,) = desk.do(steps)
    assert (effect.done, undone.done, stored(patient, LOST[0])) == (True, True, before)
    assert row is not None
    assert abs((datetime.now(UTC) - row[0]).total_seconds()) < 60


def test_the_provider_is_asked_again(desk: Desk, patient: Sandbox) -> None:
    asked = order(RESYNC, [seen(patient, LOST[0])])
    _say(patient, "preparing")
    refused(desk, asked, "Mux does not say that its video is ready")
    patient.vendors.change("mux", assets=[])
    refused(desk, asked, "Mux does not know its video")
    patient.vendors.fail("mux", status=503)
    try:
        refused(desk, asked, "Mux cannot be asked")
    finally:
        patient.vendors.heal("mux")
    assert stored(patient, LOST[0])[0] == "PROCESSING"


def test_cloudflare_stream_is_asked_as_well(desk: Desk, patient: Sandbox) -> None:
    video = {"uid": "a" * 32, "state": "ready", "created": MADE.isoformat(), "name": LOST[0]}
    asked = order(RESYNC, [seen(patient, LOST[0], provider="stream", video_id="a" * 32)])
    patient.vendors.change("stream", videos=[video | {"state": "inprogress"}])
    try:
        refused(desk, asked, "Cloudflare Stream does not say that its video is ready")
        patient.vendors.change("stream", videos=[video])
        (effect,) = desk.do(lambda desk: desk.applied(asked))
    finally:
        patient.vendors.reset("stream")
    assert (effect.done, stored(patient, LOST[0])[0]) == (True, "READY")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"provider": None}, "no provider speaks of its video"),
        ({"video_id": None}, "no provider speaks of its video"),
        ({"status": "UPLOADING"}, "it has changed since"),
        ({"updated_at": "2026-01-01 00:00:00"}, "it has changed since"),
        ({"id": "content-0"}, "it is gone"),
        ({"to": "PROCESSING"}, "that status already"),
        ({"video_created_at": None}, "did not tell when"),
    ],
)
def test_what_is_not_sure_is_not_planned(desk: Desk, patient: Sandbox, changed: dict[str, Any], reason: str) -> None:
    refused(desk, order(RESYNC, [seen(patient, LOST[0]) | changed]), reason)
    assert stored(patient, LOST[0])[0] == "PROCESSING"


def test_a_status_that_the_table_does_not_know_is_refused_and_nothing_is_written(desk: Desk, patient: Sandbox) -> None:
    asked = order(RESYNC, [seen(patient, LOST[0], to="DONE'; DROP TABLE content; --")])

    async def steps(desk: Desk) -> None:
        await desk.approved(asked)
        await desk.acting.apply(asked, ME)

    with pytest.raises(Refused, match="PostgreSQL refuses"):
        desk.do(steps)
    assert stored(patient, LOST[0])[0] == "PROCESSING"


def test_a_role_that_may_not_write_is_told_what_it_needs(desk: Desk, patient: Sandbox) -> None:
    desk.plain["postgres"] = {**desk.plain["postgres"], "action_dsn": patient.dsn("reserve")}
    with pytest.raises(Refused, match="may not write") as told:
        desk.do(lambda desk: desk.acting.plan(order(RESYNC, [seen(patient, LOST[0])]), ME))
    assert told.value.remedy == 'GRANT UPDATE (status, "updatedAt") ON content TO reserve'


def test_the_acting_role_may_write_these_two_columns_and_no_other(patient: Sandbox) -> None:
    with psycopg.connect(patient.dsn("oncall"), autocommit=True) as acting, pytest.raises(psycopg.Error) as told:
        acting.execute("UPDATE content SET title = 'x' WHERE id = 'content-1'")
    assert told.value.sqlstate == "42501"

"""The rules of the connection runbook, on servers described in a few words."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbook.diagnosis.connections import diagnose
from runbook.result import TIERS, Findings, Reading
from tests.unit.diagnosis.server import Server, reading

FAILED = ("unreachable", "auth_failed", "permission_denied", "rate_limited", "timeout", "stale")


def leak(app: str = "checkout", count: int = 25, server: Server | None = None, **how: object) -> Server:
    server = server or Server()
    server.add(count, state="idle in transaction", age=90, app=app, **how)  # type: ignore[arg-type]
    return server


def pile_up(waiters: int = 12, state: str = "idle in transaction", **root: object) -> Server:
    server = Server()
    (pid,) = server.add(1, state=state, age=40, app="importer", **root)  # type: ignore[arg-type]
    server.block(pid, server.add(waiters, state="active", age=30, app="api"))
    return server


def ddl_queue() -> Server:
    server = Server()
    (root,) = server.add(1, state="active", age=600, app="report")
    (ddl,) = server.add(1, state="active", age=50, app="migrate")
    server.block(root, [ddl])
    server.sessions[-1]["lock"] = {"locktype": "relation", "mode": "AccessExclusiveLock", "relation": "orders"}
    server.block(ddl, server.add(9, state="active", age=40))
    return server


def prepared() -> Server:
    server = Server(prepared=[{"gid": "tx-7", "owner": "app", "database": "app", "age_seconds": 900, "relations": []}])
    server.block(0, server.add(6, state="active", age=40))
    return server


def _wraparound() -> Server:
    server = Server()
    (vacuum,) = server.add(1, state="active", age=3000, app="(unset)")
    server.sessions.pop()  # an autovacuum worker is no client
    (ddl,) = server.add(1, state="active", age=50, app="migrate")
    server.block(vacuum, [ddl])
    server.block(ddl, server.add(9, state="active", age=40))
    return server


def saturation() -> Server:
    server = Server()
    server.add(40, state="active", age=20, app="search", query_id="42")
    server.add(10)
    return server


def pools() -> Server:
    server = Server()
    for app in ("api", "jobs"):
        server.add(40, app=app)
    return server


def storm() -> Server:
    server = Server(rate=40)
    server.add(85, age=2, session_age=5, app="lambda")
    return server


def limit(kind: str) -> Server:
    server = Server(limits=[{"kind": kind, "name": "billing", "connection_limit": 5, "used": 5}])
    server.add(5, role="billing", database="billing")
    return server


def half_open() -> Server:
    server = Server(
        version_num=150004,
        connection={"via": "reserve", "refused": True, "refused_code": "53300"},
        titles=["postgres: web app 10.0.0.66(5000) authentication"] * 90 + ["postgres: web app 10.0.0.7(1) idle"],
    )
    server.add(3)
    return server


def orphaned() -> Server:
    server = Server()
    gone = server.add(30, state="active", age=100, app="mobile", query_id="9")
    server.add(5)
    server.peers(closed=gone)
    return server


def superusers() -> Server:
    server = Server(connection={"via": "reserve", "refused": True, "refused_code": "53300"})
    server.add(57, app="backoffice", role="postgres", superuser=True)
    server.add(40)
    return server


def pooler(**database: object) -> Server:
    server = Server()
    server.add(5)
    pool = {"database": "app", "user": "web", "cl_active": 5, "cl_waiting": 8, "sv_active": 5, "maxwait": 7}
    server.extra = [
        reading("pools", [pool], source="pgbouncer"),
        reading("pooler_databases", [{"name": "app", "pool_size": 5, "paused": 0} | database], source="pgbouncer"),
        reading("pooler_config", [{"key": "max_client_conn", "value": "100"}], source="pgbouncer"),
    ]
    return server


def app_pool() -> Server:
    server = Server()
    server.add(5)
    row = {"log": "/var/log/app.log", "pattern": "Prisma P2024", "timeouts": 40, "last": "2026-03-01T02:59:59"}
    server.extra = [reading("app_pool", [row], source="shell")]
    return server


def walsenders() -> Server:
    server = Server(walsenders=10)
    server.add(5)
    server.extra = [reading("replication_startup", {"refused": True, "code": "53300", "message": "…"})]
    return server


def growth() -> Server:
    server = Server()
    for app in ("a", "b", "c", "d"):
        server.add(10, app=app)
        server.add(10, app=app, state="active", age=0.01, query_id=app)
    server.cores = 64
    server.extra = [reading("trend", [{"weekly_growth": 0.12}], source="prometheus")]
    return server


def healthy() -> Server:
    server = Server()
    server.add(30)
    server.add(4, state="active", age=0.02)
    server.add(2, state="idle in transaction", age=0.05)
    return server


SERVERS: dict[str, Callable[[], Server]] = {
    "P01": leak, "P02": pile_up, "P02a": ddl_queue, "P02b": prepared, "P03": saturation, "P04": pools, "P05": storm,
    "P06": lambda: limit("role"), "P07": lambda: limit("database"), "P08": half_open, "P09": orphaned, "P10": pooler,
    "P11": app_pool, "P12": growth, "P13": walsenders, "P14": superusers,
}  # fmt: skip


def found(findings: Findings) -> list[str]:
    return [v.cause for v in findings.verdict if v.tier in ("confirmed", "probable") and v.role != "consequence"]


@pytest.mark.parametrize("cause", SERVERS)
def test_each_cause_is_found_first_and_alone(cause: str) -> None:
    findings = diagnose(SERVERS[cause]().readings(), {})
    assert findings.outcome == "diagnosed"
    assert found(findings) == [cause]
    assert findings.verdict[0].tier == "confirmed"


def test_a_healthy_server_is_healthy() -> None:
    findings = diagnose(healthy().readings(), {})
    assert findings.outcome == "healthy"
    assert found(findings) == ["P00"]
    assert findings.symptom.breached is False


def test_a_leak_names_its_application_and_the_sessions_to_end() -> None:
    findings = diagnose(leak().readings(), {})
    assert findings.verdict[0].details["application_name"] == "checkout"
    assert findings.verdict[0].details["sessions"] == 25
    end = findings.actions[0]
    assert end.kind == "postgres.terminate_session"
    assert len(end.targets) == 10
    assert all({"pid", "backend_start", "state_change"} <= set(t) for t in end.targets)
    assert all(str(t["pid"]) in end.by_hand for t in end.targets)


def test_sessions_without_a_name_are_told_apart_by_role_and_client() -> None:
    server = leak(app="(unset)", count=20, client="10.0.0.1")
    leak(app="(unset)", count=4, client="10.0.0.2", server=server)
    top = diagnose(server.readings(), {}).verdict[0]
    assert (top.cause, top.details["client"], top.details["sessions"]) == ("P01", "10.0.0.1", 20)


@pytest.mark.parametrize("age", [0.5, 5, 29])
def test_short_transactions_are_no_leak(age: float) -> None:
    server = Server()
    server.add(25, state="idle in transaction", age=age)
    findings = diagnose(server.readings(), {})
    assert "P01" not in found(findings)
    assert found(diagnose(server.readings(), {"idle_after_seconds": age / 2})) == ["P01"]


def test_a_leak_beside_a_pile_up_is_a_compound_of_both() -> None:
    server = pile_up(waiters=44)
    leak(count=36, server=server)
    findings = diagnose(server.readings(), {})
    assert found(findings) == ["P02", "P01"]
    assert [v.tier for v in findings.verdict[:2]] == ["confirmed", "confirmed"]
    assert [v.role for v in findings.verdict[:2]] == ["main", "contributing"]
    assert findings.unexplained == 0


def test_the_root_of_a_pile_up_is_named_and_proposed_for_ending() -> None:
    findings = diagnose(pile_up().readings(), {})
    root = findings.verdict[0].details["pid"]
    assert findings.verdict[0].details["application_name"] == "importer"
    assert [t["pid"] for t in findings.actions[0].targets] == [root]


def test_three_waiters_on_a_large_server_are_a_pile_up_all_the_same() -> None:
    server = pile_up(waiters=3)
    server.add(50)
    assert found(diagnose(server.readings(), {})) == ["P02"]


def test_two_waiters_are_no_pile_up() -> None:
    assert found(diagnose(pile_up(waiters=2).readings(), {})) == ["P00"]


def test_queued_ddl_is_cancelled_before_anything_else_is_touched() -> None:
    findings = diagnose(ddl_queue().readings(), {})
    assert findings.actions[0].kind == "postgres.cancel_statement"
    assert findings.actions[0].targets[0]["application_name"] == "migrate"
    assert findings.verdict[0].details["amplifier"]["relation"] == "orders"


def test_row_locks_that_queue_on_each_other_are_no_amplifier() -> None:
    server = Server()
    (root,) = server.add(1, state="idle in transaction", age=60)
    first, *rest = server.add(10, state="active", age=50)
    server.block(root, [first])
    server.block(first, rest)
    assert found(diagnose(server.readings(), {})) == ["P02"]


def test_a_prepared_transaction_is_left_to_its_owner() -> None:
    findings = diagnose(prepared().readings(), {})
    assert findings.verdict[0].details["gid"] == "tx-7"
    assert [a.kind for a in findings.actions] == ["postgres.finish_prepared"]


@pytest.mark.parametrize("name", ["pg_dump", "pg_basebackup", "barman", "wal-g", "pgbackrest"])
def test_backup_tools_are_never_a_target(name: str) -> None:
    assert diagnose(pile_up(role="backup").readings(), {}).actions
    server = pile_up()
    server.sessions[0]["application_name"] = name
    assert not [a for a in diagnose(server.readings(), {}).actions if a.kind.endswith("session")]


def test_superusers_are_never_a_target() -> None:
    server = leak(superuser=True, role="postgres")
    assert not [a for a in diagnose(server.readings(), {}).actions if a.kind.endswith("session")]


def test_idle_pools_with_room_beside_them_are_as_they_should_be() -> None:
    server = Server()
    server.add(30, app="api")
    server.add(30, app="jobs")
    assert found(diagnose(server.readings(), {})) == ["P00"]


def test_a_deployment_that_opens_its_pools_is_no_storm() -> None:
    server = Server(rate=0)
    for app in ("api", "jobs"):
        server.add(40, app=app, age=20, session_age=20)
    assert found(diagnose(server.readings(), {})) == ["P04"]


def test_one_slow_statement_is_found_without_query_ids_too() -> None:
    server = Server()
    server.add(40, state="active", age=20, query="SELECT * FROM orders WHERE note LIKE ?")
    assert found(diagnose(server.readings(), {})) == ["P03"]


def test_orphans_are_not_called_slow_queries() -> None:
    findings = diagnose(orphaned().readings(), {})
    assert next(v for v in findings.verdict if v.cause == "P03").tier == "excluded"


def test_sockets_of_another_host_say_nothing_about_orphans() -> None:
    server = saturation()
    server.sockets = [{"state": "CLOSE-WAIT", "peer": "172.17.0.1:1"}]
    assert found(diagnose(server.readings(), {})) == ["P03"]


def test_a_paused_pooler_is_resumed_not_enlarged() -> None:
    findings = diagnose(pooler(paused=1).readings(), {})
    assert [a.kind for a in findings.actions] == ["pgbouncer.resume"]
    assert findings.actions[0].targets == [{"database": "app"}]


def test_a_full_pooler_is_enlarged_by_a_number_that_the_server_has_room_for() -> None:
    (action,) = diagnose(pooler().readings(), {}).actions
    assert action.kind == "pgbouncer.pool_size"
    (target,) = action.targets
    assert (target["database"], target["pool_size"]) == ("app", 5)
    assert 5 < target["to"] <= 10
    assert f"= {target['to']};" in action.by_hand


def test_a_pooler_that_waits_for_a_lock_is_a_consequence() -> None:
    server = pile_up()
    server.extra = pooler().extra
    findings = diagnose(server.readings(), {})
    assert found(findings) == ["P02"]
    consequence = next(v for v in findings.verdict if v.cause == "P10")
    assert (consequence.role, consequence.consequence_of) == ("consequence", "P02")


def test_a_limit_of_zero_closes_on_purpose() -> None:
    server = healthy()
    server.limits = [{"kind": "role", "name": "retired", "connection_limit": 0, "used": 0}]
    assert found(diagnose(server.readings(), {})) == ["P00"]


def test_a_database_limit_that_refuses_us_is_no_want_of_slots() -> None:
    server = limit("database")
    server.connection = {"via": "maintenance database", "refused": True, "refused_code": "53300"}
    findings = diagnose(server.readings(), {})
    assert found(findings) == ["P07"]
    assert next(v for v in findings.verdict if v.cause == "P08").tier == "excluded"


def test_a_role_that_sees_only_itself_gives_no_verdict_and_says_which_grant_is_missing() -> None:
    server = leak()
    server.connection = {"sees_all": False, "role": "app"}
    findings = diagnose(server.readings(), {})
    assert findings.outcome == "undetermined"
    assert found(findings) == []
    assert "GRANT pg_monitor TO app" in findings.not_checked[0].reason
    assert "P01" in findings.not_checked[0].blocks


@pytest.mark.parametrize("state", FAILED)
def test_a_server_that_cannot_be_read_is_undetermined_never_healthy(state: str) -> None:
    failed = [replace(r, state=state, reason="…", value=None) for r in healthy().readings()]  # type: ignore[arg-type]
    findings = diagnose(failed, {})
    assert findings.outcome == "undetermined"
    assert found(findings) == []
    assert all(v.tier in ("undetermined", "excluded") for v in findings.verdict)
    assert {n.state for n in findings.not_checked} == {state}


def test_sessions_that_are_not_tracked_are_unknown_not_idle() -> None:
    readings = healthy().readings()
    for r in readings:
        if r.name == "headroom":
            r.value[0]["untracked"] = 3
    findings = diagnose(readings, {})
    assert findings.outcome == "undetermined"
    assert "track_activities" in findings.not_checked[0].reason


def test_a_saturation_whose_cores_are_unknown_is_not_called_healthy() -> None:
    server = saturation()
    server.cores = None
    findings = diagnose(server.readings(), {})
    assert findings.outcome == "undetermined"
    assert diagnose(server.readings(), {"cores": 4}).outcome == "diagnosed"


def test_nothing_read_at_all_is_undetermined() -> None:
    assert diagnose([], {}).outcome == "undetermined"


def test_a_server_without_any_slot_left_says_so_and_blames_nobody() -> None:
    refused = reading("connection", None, state="unreachable", code="53300", reason="sorry, too many clients already")
    findings = diagnose([refused], {})
    assert findings.outcome == "undetermined"
    assert findings.symptom.breached is True
    assert findings.impact.startswith("Ordinary roles are refused")


def test_half_open_logins_are_found_from_the_process_list_alone() -> None:
    refused = reading("connection", None, state="unreachable", code="53300", reason="sorry, too many clients already")
    titles = [{"pid": n, "title": f"postgres: web app 10.0.0.66({n}) authentication"} for n in range(25)]
    findings = diagnose([refused, reading("processes", titles, source="shell")], {})
    assert found(findings) == ["P08"]


def test_a_symptom_seen_in_one_sample_of_three_is_gone() -> None:
    server = healthy()
    readings = server.readings()
    peak = next(r for r in readings if r.name == "headroom")
    peak.value[0]["clients"] = 95
    findings = diagnose(readings, {})
    assert findings.outcome == "no_current_fault"
    assert findings.symptom.peak is not None
    assert findings.symptom.peak > 90


@pytest.mark.parametrize("cause", [*SERVERS, "healthy"])
def test_the_same_readings_give_the_same_bytes(cause: str) -> None:
    server = (SERVERS | {"healthy": healthy})[cause]()
    once = json.dumps(diagnose(server.readings(), {}).as_dict())
    shuffled = server.readings()
    rows = next(r for r in shuffled if r.name == "sessions").value
    random.Random(7).shuffle(rows)
    assert json.dumps(diagnose(shuffled, {}).as_dict()) == once


NAMES = sorted({r.name for make in (*SERVERS.values(), healthy) for r in make().readings()})


@settings(max_examples=400, deadline=None)
@given(
    cause=st.sampled_from([*SERVERS, "healthy"]),
    lost=st.sets(st.sampled_from(NAMES), min_size=1),
    state=st.sampled_from(FAILED),
)
@example(cause="P03", lost={"cores"}, state="unreachable")
def test_a_failed_reading_never_raises_a_cause(cause: str, lost: set[str], state: str) -> None:
    server = (SERVERS | {"healthy": healthy})[cause]()
    if cause not in ("P08", "P09"):
        server.peers()
    complete = server.readings()
    cut: list[Reading] = [
        replace(r, state=state, reason="…", value=None) if r.name in lost else r  # type: ignore[arg-type]
        for r in complete
    ]
    before = {v.cause: v.tier for v in diagnose(complete, {}).verdict}
    after = diagnose(cut, {})
    for verdict in after.verdict:
        if verdict.tier in ("confirmed", "probable"):
            assert TIERS.index(verdict.tier) >= TIERS.index(before[verdict.cause]), verdict
            assert before[verdict.cause] in ("confirmed", "probable"), verdict

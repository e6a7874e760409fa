"""The rules of runbook *high_response_time*, on services described by how long their requests took."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbook.diagnosis.readings import Readings
from runbook.diagnosis.responses import decomposition, diagnose, finding, prevention
from runbook.result import TIERS, Findings, Reading, Verdict
from tests.unit.diagnosis.latency import Latency, everybody, probe
from tests.unit.diagnosis.server import NOW, Server, reading

SLOW = 2000.0
PAY = "api.pay.example"
FAILED = ("unreachable", "auth_failed", "permission_denied", "rate_limited", "timeout", "stale")
SEARCH = 'SELECT id FROM "Orders" WHERE lower(email) = $1'


def healthy() -> Latency:
    return everybody(200, 40.0)


def one_route(milliseconds: float = SLOW, **how: Any) -> Latency:
    """One route of four is slow, one request in six."""
    return healthy().add(120, milliseconds, route="/orders", **how)


def statement() -> Latency:
    """An index is gone: one statement has become a hundred times slower and reads its table in whole."""
    service = one_route()
    # 120 slow requests of 2 s in 300 s: 800 ms a second.
    service.statements = {
        "-77": (SEARCH, 9000, 18_000.0, 4, 7600.0, 36_000, 80_000),
        "12": ("SELECT * FROM items WHERE id = $1", 90_000, 9000.0, 900, 90.0, 360_000, 3600),
    }
    service.tables = {'"Orders"': (900_000, 4, 3_600_000, 0, 0, 9000), "items": (3000, 0, 0, 900, 0, 90_000)}
    return service


def sampled_statement() -> Latency:
    """The same without statistics of statements: what was seen running, and what was read in whole."""
    service = statement()
    service.has_statistics = False
    service.running = [("-77", SEARCH, 2, 1.4, None)]
    return service


def locked(kind: str = "idle in transaction") -> Latency:
    """An open transaction holds what one route wants to change."""
    service = one_route()
    service.lock_waiting = 3
    service.server = Server()
    root = service.server.add(1, state=kind, age=40.0, app="batch")[0]
    service.server.block(root, service.server.add(4, state="active", app="api"))
    service.statements = {"5": ("UPDATE items SET n = n + $1", 5000, 5000.0, 8, 16_000.0, 20_000, 32)}
    return service


def pool() -> Latency:
    """Connections are held while nothing runs: who wants one waits, the database idles."""
    service = one_route()
    service.metrics = {
        "pool_waiting": 6.0,
        "pool_size": 10.0,
        "pool_wait_seconds_total": 100.0,
        "pool_waits_total": 900,
    }
    service.metrics_later = {"pool_wait_seconds_total": 118.0, "pool_waits_total": 910}
    return service


def pgbouncer() -> Latency:
    service = one_route()
    service.pools = [{"database": "app", "cl_waiting": 7, "maxwait": 1, "maxwait_us": 500_000, "pool_size": 5}]
    return service


def blocked_loop() -> Latency:
    service = everybody(200, SLOW)
    service.metrics, service.live_ms = {"event_loop_lag_p99_ms": 900.0}, 700.0
    return service


def loop_without_metric() -> Latency:
    """The application exports no lag; the endpoint that depends on nothing is slow."""
    service = blocked_loop()
    service.instead = [reading("app_metrics", None, source="app_metrics", state="not_configured", reason="not set")]
    return service


def processors() -> Latency:
    service = everybody(200, SLOW)
    service.runnable, service.pressure = 14.0, {("cpu", "some"): 71.0}
    return service


def throttled() -> Latency:
    service = everybody(200, SLOW)
    row = {"host": "w1", "path": "/app.slice", "cpu_quota_cores": 0.5}
    service.cgroups = (
        [row | {"cpu_periods": 100, "cpu_throttled": 10}],
        [row | {"cpu_periods": 200, "cpu_throttled": 80}],
    )
    return service


def memory() -> Latency:
    service = everybody(200, SLOW)
    service.pressure = {("memory", "full"): 22.0, ("memory", "some"): 40.0}
    return service


def disk() -> Latency:
    service = one_route()
    service.statements = {}
    service.running = [("8", "SELECT sum(x) FROM a", 1, 1.2, "IO"), ("9", "SELECT sum(y) FROM b", 1, 0.9, "IO")]
    service.has_statistics = False
    service.pressure = {("io", "some"): 63.0}
    return service


def vendor() -> Latency:
    """The vendor's own time is told by the log."""
    return one_route(upstream=PAY, span="1.960")


def vendor_by_probe() -> Latency:
    """The log tells no time of the vendor's own; our own look at it is slow."""
    service = one_route(upstream=PAY)
    service.hosts = [probe(PAY, answer_ms=1900.0)]
    return service


def surge() -> Latency:
    service = everybody(400, SLOW)
    service.before = service.before[::5]
    return service


def loop_of_statements() -> Latency:
    service = one_route()
    service.statements = {
        "31": ("SELECT * FROM tags WHERE item = $1", 9000, 900.0, 16_000, 1600.0, 36_000, 64_000),
        "12": ("SELECT * FROM items WHERE id = $1", 90_000, 9000.0, 48, 5.0, 360_000, 200),
    }
    return service


def redis() -> Latency:
    service = one_route()
    service.ping_ms = 320.0
    service.slowlog = [{"id": n, "ago_seconds": 5.0 * n, "seconds": 1.5, "command": "KEYS", "name": "cron"}
                       for n in range(50)]  # fmt: skip
    return service


def cold_cache() -> Latency:
    service = one_route()
    service.redis_load = ({}, {"hits": 90_050, "misses": 10_500})
    return service


def connecting() -> Latency:
    """The name of the vendor takes its time; its answer does not."""
    service = one_route(upstream=PAY, span="1.960", connect="1.800")
    service.hosts = [probe(PAY, dns_ms=1750.0)]
    return service


def instance() -> Latency:
    return healthy().add(120, SLOW, instance="a9", earlier=True)


def standby() -> Latency:
    service = one_route()
    service.has_statistics = False
    service.replicas = [{"application_name": "r1", "sync_state": "sync", "replay_seconds": 45.0, "own_seconds": None}]
    service.running = [("5", "COMMIT", 2, 1.1, "SyncRep")]
    return service


def release() -> Latency:
    service = healthy()
    for route in ("/items", "/items/7", "/feed"):
        service.add(100, SLOW, route=route, release="1.9.0", earlier=False)
    return service


def bloat() -> Latency:
    service = statement()
    service.tables = {"Orders": (500, 0, 0, 8, 800_000, 9000)}
    service.horizon = [{"holder": "session", "name": "4711", "application_name": "report",
                        "state": "idle in transaction", "xmin_age": 80_000, "seconds": 7200}]  # fmt: skip
    return service


def streams_counted() -> Latency:
    return healthy().add(100, 30_000.0, route="/events", earlier=True)


def new_endpoint() -> Latency:
    return healthy().add(120, SLOW, route="/export", earlier=False)


SERVICES: dict[str, tuple[str, Callable[[], Latency]]] = {
    "L01": ("L01", statement),
    "L01 without statistics": ("L01", sampled_statement),
    "L02": ("L02", locked),
    "L03": ("L03", pool),
    "L03 at PgBouncer": ("L03", pgbouncer),
    "L04": ("L04", processors),
    "L05": ("L05", blocked_loop),
    "L05 without a metric": ("L05", loop_without_metric),
    "L06": ("L06", memory),
    "L07": ("L07", disk),
    "L08": ("L08", vendor),
    "L08 by a probe": ("L08", vendor_by_probe),
    "L09": ("L09", surge),
    "L10": ("L10", loop_of_statements),
    "L11": ("L11", redis),
    "L11 cold cache": ("L11", cold_cache),
    "L12": ("L12", connecting),
    "L13": ("L13", instance),
    "L14": ("L14", standby),
    "L15": ("L15", release),
    "L16": ("L16", throttled),
    "L17": ("L17", bloat),
    "L18": ("L18", streams_counted),
    "L18 new endpoint": ("L18", new_endpoint),
}


def findings(service: Latency, **parameters: Any) -> Findings:
    return diagnose(service.readings(), parameters)


def found(result: Findings) -> dict[str, Verdict]:
    """Findings that are no consequence of others."""
    return {v.cause: v for v in result.verdict if v.tier in ("confirmed", "probable") and v.role != "consequence"}


@pytest.mark.parametrize("name", SERVICES)
def test_each_fault_gives_its_cause_and_no_other(name: str) -> None:
    cause, make = SERVICES[name]
    result = findings(make())
    assert set(found(result)) == {cause}
    assert result.verdict[0].cause == cause
    assert (result.outcome, result.symptom.breached) == ("diagnosed", name != "L18")


@pytest.mark.parametrize("name", [n for n in SERVICES if n not in ("L07", "L14")])
def test_with_everything_read_it_is_confirmed(name: str) -> None:
    cause, make = SERVICES[name]
    assert found(findings(make()))[cause].tier == "confirmed"


def test_nothing_is_found_where_nothing_is_slow() -> None:
    result = findings(healthy())
    assert (result.outcome, found(result)) == ("healthy", {})
    assert result.symptom.value == 40.0
    assert result.impact.startswith("None seen")


@pytest.mark.parametrize("name", [n for n in SERVICES if n not in ("L18",)])
def test_no_cause_stands_while_nothing_is_slow(name: str) -> None:
    """Whatever else is ill: who is asked why requests are slow, and sees none that is, names no cause."""
    _, make = SERVICES[name]
    service = make()
    service.requests = healthy().requests
    result = findings(service)
    assert found(result) == {}
    assert result.outcome == "healthy"


def test_a_peak_that_is_over_is_no_current_fault() -> None:
    service = healthy()
    service.instead = [
        reading("latency_curve", [{"at": NOW.isoformat(), "seconds": 60, "requests": 300, "p95_ms": 2400.0}])
    ]
    assert findings(service).outcome == "no_current_fault"


def test_few_requests_are_not_enough_to_judge() -> None:
    result = findings(Latency().add(150, SLOW))
    assert (result.outcome, found(result), result.symptom.breached) == ("insufficient_data", {}, None)


def test_requests_without_a_duration_are_unknown_and_never_fast() -> None:
    service = Latency()
    for route in ("/a", "/b"):
        service.add(300, None, route=route)
    result = findings(service)
    assert (result.outcome, result.symptom.value, found(result)) == ("undetermined", None, {})
    assert "no duration" in next(e.reason for e in result.evidence if e.id == "L08.share")


# -- must not ---------------------------------------------------------------------------------------------------------


def test_a_slow_statement_is_named_with_what_it_was_before_and_no_percentile() -> None:
    result = findings(statement())
    details = found(result)["L01"].details
    assert (details["query_id"], details["mean_ms"], details["mean_ms_before"]) == ("-77", 1900.0, 2.0)
    assert details["table"] == '"Orders"'
    assert not any("p95" in key for key in details)


def test_a_statement_that_takes_next_to_nothing_of_the_slow_time_is_no_cause() -> None:
    service = vendor()
    service.statements = {"12": ("SELECT * FROM items WHERE id = $1", 90_000, 9000.0, 900, 400.0, 360_000, 3600)}
    result = findings(service)
    assert set(found(result)) == {"L08"}


def test_a_report_beside_a_slow_vendor_is_not_the_cause() -> None:
    """A statement that is busy all the time for somebody else, while the log tells that the vendor had the time."""
    service = vendor()
    service.statements = statement().statements
    service.tables = statement().tables
    assert set(found(findings(service))) == {"L08"}


def test_a_route_that_calls_a_vendor_and_is_slow_in_the_database_is_the_databases() -> None:
    service = statement()
    service.requests = [r._replace(upstream=PAY) if r.path == "/orders" else r for r in service.requests]
    result = findings(service)
    assert set(found(result)) == {"L01"}


def test_without_a_witness_a_vendor_is_at_most_probable() -> None:
    service = one_route(upstream=PAY)
    service.hosts = [probe(PAY)]
    verdicts = found(findings(service))
    assert set(verdicts) == {"L08"}
    assert verdicts["L08"].tier == "probable"


def test_a_vendor_that_answers_fast_is_cleared_by_its_own_time() -> None:
    result = findings(one_route(upstream=PAY, span="0.020"))
    assert "L08" not in found(result)
    assert next(e for e in result.evidence if e.id == "L08.share").reading == "refutes"


def test_our_own_instances_behind_a_proxy_are_no_vendor() -> None:
    service = healthy()
    service.requests = [r._replace(upstream="10.2.0.7:3000") for r in service.requests]
    service.add(240, SLOW, route="/orders", upstream="10.2.0.7:3000", span="1.990")
    assert "L08" not in found(findings(service))


def test_lock_waits_are_no_slow_statement() -> None:
    result = findings(locked())
    assert "L01" not in {v.cause for v in result.verdict if v.tier in ("confirmed", "probable")}
    details = found(result)["L02"].details
    assert (details["refers_to"], details["application_name"], details["waiters"]) == ("P02", "batch", 4)


def test_a_pool_that_is_full_of_slow_statements_follows_from_them() -> None:
    service = statement()
    service.running = [("-77", SEARCH, 8, 1.9, None)]
    service.metrics = {"pool_waiting": 40.0, "pool_size": 10.0}
    verdicts = {v.cause: v for v in findings(service).verdict}
    assert verdicts["L01"].role == "main"
    assert (verdicts["L03"].role, verdicts["L03"].consequence_of) == ("consequence", "L01")


def test_the_server_counts_the_time_that_few_looks_catch() -> None:
    """One look of many saw the statement: by the looks it is nothing, by the server's own count it is the matter."""
    service = sampled_statement()
    seen = reading("activity", [{"query_id": "-77", "query": SEARCH, "sessions": 1, "longest_seconds": 0.3,
                                 "wait_event_type": None, "wait_event": None}])  # fmt: skip
    service.instead = [seen, *(reading("activity", []) for _ in range(11))]
    assert "L01" not in found(findings(service))
    service.sql_time = 760.0
    assert found(findings(service))["L01"].tier == "confirmed"


def test_time_in_sql_of_which_no_look_caught_a_statement_leaves_it_open_which_one() -> None:
    service = sampled_statement()
    service.running, service.sql_time = [], 760.0
    result = findings(service)
    assert next(v for v in result.verdict if v.cause == "L01").tier == "undetermined"


@pytest.mark.parametrize(("sessions", "first"), [(3, "L01"), (1, "L03")])
def test_the_wait_for_a_pool_is_theirs_who_have_its_connections(sessions: int, first: str) -> None:
    """Of 800 ms a second 700 are waits for the pool, 76 the statement's, that has so many of its ten connections."""
    service = statement()
    service.statements["-77"] = (SEARCH, 9000, 18_000.0, 4, 760.0, 36_000, 80_000)
    service.running = [("-77", SEARCH, sessions, 0.2, None)]
    service.metrics = {"pool_waiting": 0.7, "pool_size": 10.0}
    verdicts = {v.cause: v for v in findings(service).verdict}
    assert verdicts[first].role == "main"
    assert verdicts[first].tier == "confirmed"
    assert (verdicts["L03"].consequence_of, verdicts["L01"].tier) == (
        ("L01", "confirmed") if first == "L01" else (None, "possible")
    )


def test_a_machine_that_is_busy_while_one_route_is_well_is_no_cause() -> None:
    service = one_route(upstream=PAY, span="1.960")
    service.runnable, service.pressure = 40.0, {("cpu", "some"): 90.0, ("memory", "full"): 30.0}
    row = {"host": "w1", "path": "/other", "cpu_quota_cores": 1.0}
    service.cgroups = ([row | {"cpu_periods": 0, "cpu_throttled": 0}], [row | {"cpu_periods": 90, "cpu_throttled": 90}])
    assert set(found(findings(service))) == {"L08"}


def test_an_application_that_always_asks_much_is_not_slow_by_it() -> None:
    service = vendor()
    chatty = ("SELECT * FROM tags WHERE item = $1", 900_000, 90_000.0, 900, 90.0, 3_600_000, 3600)
    service.statements = {"31": chatty, "12": ("SELECT 2", 90_000, 9000.0, 90, 5.0, 360_000, 200)}
    assert set(found(findings(service))) == {"L08"}


def test_twice_the_traffic_from_one_client_is_no_surge_of_many() -> None:
    service = everybody(400, SLOW, client="10.6.6.6")
    service.before = service.before[::5]
    assert "L09" not in found(findings(service))


def test_a_standby_that_is_behind_slows_nobody_who_does_not_wait_for_it() -> None:
    service = standby()
    service.running = [("5", "SELECT 1", 1, 0.001, None)]
    assert "L14" not in found(findings(service))


def test_a_redis_that_is_far_from_us_is_not_slow_for_the_application() -> None:
    service = vendor()
    service.ping_ms = 45.0
    assert "L11" not in found(findings(service))
    far = one_route()
    far.ping_ms = 320.0
    assert set(found(findings(far))) == {"L13"}


def test_files_that_the_proxy_serves_by_itself_are_no_sign_that_the_application_is_well() -> None:
    service = blocked_loop().add(400, 2.0, route="/assets/app.js", instance=None, release=None)
    assert set(found(findings(service))) == {"L05"}


def test_a_scan_that_waits_for_each_of_its_reads_is_no_slow_disk() -> None:
    service = sampled_statement()
    service.running = [("-77", SEARCH, 2, 1.4, "IO")]
    assert set(found(findings(service))) == {"L01"}


def test_a_disk_that_a_scan_keeps_busy_follows_from_the_scan() -> None:
    service = sampled_statement()
    service.running, service.pressure = [("-77", SEARCH, 2, 1.4, "IO")], {("io", "some"): 70.0}
    verdicts = {v.cause: v for v in findings(service).verdict}
    assert (verdicts["L01"].role, verdicts["L07"].consequence_of) == ("main", "L01")


def test_a_short_queue_before_a_pool_is_no_fault() -> None:
    service = vendor()
    service.metrics = {"pool_waiting": 1.0, "pool_wait_seconds_total": 5.0, "pool_waits_total": 900}
    service.metrics_later = {"pool_wait_seconds_total": 5.1, "pool_waits_total": 1400}
    assert set(found(findings(service))) == {"L08"}


def test_the_newest_release_on_one_bad_instance_is_not_the_releases() -> None:
    service = healthy()
    service.add(160, 40.0, release="1.9.0", instance="b1", earlier=False)
    service.add(160, SLOW, release="1.9.0", instance="b2", earlier=False)
    result = findings(service)
    assert "L15" not in {v.cause for v in result.verdict if v.tier == "confirmed"}
    assert result.verdict[0].cause == "L13"


def replaced() -> Latency:
    """The new release took the place of the old one, and every route is slow."""
    service = Latency()
    for route in ("/items", "/items/7", "/feed"):
        service.add(200, SLOW, route=route, release="1.9.0")
    service.before = [r._replace(release="1.8.0") for r in service.before]
    service.deployments = [{"sha": "f" * 40, "ref": "v1.9.0", "state": "success"}]
    return service


def test_a_release_that_took_the_place_of_another_is_named_when_nothing_else_is_found() -> None:
    assert found(findings(replaced()))["L15"].details["release"] == "1.9.0"


def test_a_release_is_rolled_back_and_instances_are_added_under_the_same_names_as_elsewhere() -> None:
    (rollback,) = [a for a in findings(release()).actions if a.kind == "deploy.rollback"]
    assert rollback.targets == [{"from": found(findings(release()))["L15"].details["release"]}]
    assert "aws.scale" in [a.kind for a in findings(surge()).actions]


def test_a_deployment_nearby_is_no_cause_where_another_is_found() -> None:
    service = replaced()
    service.metrics, service.live_ms = {"event_loop_lag_p99_ms": 900.0}, 700.0
    assert set(found(findings(service))) == {"L05"}


def test_a_slow_route_is_only_a_place_while_the_database_cannot_be_asked() -> None:
    service = one_route()
    lost = {r.name for r in service._database()}
    readings = [replace(r, state="auth_failed", reason="no", value=None) if r.name in lost else r
                for r in service.readings()]  # fmt: skip
    result = diagnose(readings, {})
    assert (result.outcome, found(result)) == ("undetermined", {})


def test_a_slow_route_for_which_everything_else_is_cleared_is_named() -> None:
    result = findings(one_route())
    assert set(found(result)) == {"L13"}
    assert found(result)["L13"].details["route"] == "GET /orders"


def test_a_route_that_nobody_asked_before_is_new() -> None:
    assert found(findings(new_endpoint()))["L18"].details["route"] == "GET /export"


def test_statistics_that_were_reset_between_two_looks_say_nothing() -> None:
    service = statement()
    rows = [r for r in service.readings() if r.name == "statements"]
    smaller = [{**row, "calls": 0, "total_milliseconds": 0.0} for row in rows[1].rows]
    service.instead = [rows[0], replace(rows[1], value=smaller)]
    service.running = []
    assert "L01" not in found(findings(service))


def test_our_own_statements_are_not_counted() -> None:
    service = statement()
    service.statements = {"-9": ("SELECT * FROM pg_stat_activity", 10, 10.0, 9, 15_200.0, 0, 0)}
    assert "L01" not in found(findings(service))


# -- compounds and metrics alone --------------------------------------------------------------------------------------


def test_a_slow_statement_and_a_slow_vendor_are_both_named() -> None:
    service = statement().add(130, SLOW, route="/checkout", upstream=PAY, span="1.970")
    assert set(found(findings(service))) == {"L01", "L08"}


def test_where_metrics_alone_tell_a_p95_a_statement_is_at_most_probable() -> None:
    service = statement()
    row = {"requests": 3000, "requests_per_second": 10.0, "p95_ms": 2100.0, "errors": 0, "slow_ms": 1000.0}
    lacks = "metrics do not tell it; set traffic.access_log"
    service.instead = [
        *(reading("latency", dict(row), source="traffic", state="partial", reason=lacks) for _ in range(3)),
        *(reading(n, None, source="traffic", state="not_configured", reason=lacks)
          for n in ("latency_splits", "latency_baseline", "latency_curve")),
    ]  # fmt: skip
    verdicts = found(findings(service))
    assert {c: v.tier for c, v in verdicts.items()} == {"L01": "probable"}


# -- what is proposed -------------------------------------------------------------------------------------------------


def test_the_session_that_holds_the_lock_is_named_by_what_identifies_it() -> None:
    action = next(a for a in findings(locked()).actions if a.cause == "L02")
    assert action.kind == "postgres.terminate_session"
    assert {"pid", "backend_start", "state_change"} <= action.targets[0].keys()
    assert "backend_start" in action.by_hand


def test_a_root_that_runs_is_cancelled_and_not_ended() -> None:
    assert next(a for a in findings(locked("active")).actions if a.cause == "L02").kind == "postgres.cancel_statement"


@pytest.mark.parametrize("who", [{"app": "pg_dump"}, {"superuser": True}])
def test_a_backup_and_a_superuser_are_never_named(who: dict[str, Any]) -> None:
    service = locked()
    service.server = Server()
    root = service.server.add(1, state="idle in transaction", age=40.0, **({"app": "batch"} | who))[0]
    service.server.block(root, service.server.add(4, state="active", app="api"))
    assert not [a for a in findings(service).actions if a.cause == "L02"]


def test_an_index_is_a_proposal_with_its_table_quoted() -> None:
    service = statement()
    name = '"x""; DROP TABLE y; --"'
    text = 'SELECT id FROM "x""; DROP TABLE y; --" WHERE a = $1'
    service.statements = {"-77": (text, *service.statements["-77"][1:])}
    service.tables = {name: (900_000, 8, 7_200_000, 0, 0, 9000)}
    for action in findings(service).actions:
        if action.kind == "postgres.create_index":
            assert f"CREATE INDEX CONCURRENTLY ON {name} " in action.by_hand


def test_nothing_proposed_is_on_the_list_of_what_is_never_done() -> None:
    for _, make in SERVICES.values():
        for action in findings(make()).actions:
            for never in ("ALTER SYSTEM", "DROP TABLE", "FLUSH", "kill -9", "ROLLBACK PREPARED", "pg_wal"):
                assert never not in action.by_hand
            assert action.undo
            assert action.by_hand


# -- interfaces -------------------------------------------------------------------------------------------------------


def test_other_runbooks_get_the_leading_finding_or_none() -> None:
    leading = finding(Readings(vendor().readings()))
    assert leading is not None
    assert leading.cause == "L08"
    assert finding(Readings(healthy().readings())) is None
    assert finding(Readings([])) is None


@pytest.mark.parametrize(
    ("make", "layer"),
    [(vendor, "vendor"), (statement, "SQL"), (pool, "pool wait"), (blocked_loop, "queueing")],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_the_largest_layer_of_the_decomposition_is_the_one_at_fault(make: Callable[[], Latency], layer: str) -> None:
    parts = decomposition(make().readings(), {}).layers
    assert max(parts, key=lambda p: p.share or 0.0).name == layer
    assert sum(p.share or 0.0 for p in parts) <= 1.001


def test_a_layer_that_was_not_measured_is_unknown_and_the_rest_is_not_the_applications() -> None:
    service = vendor_by_probe()
    parts = {layer.name: layer.share for layer in decomposition(service.readings(), {}).layers}
    assert (parts["vendor"], parts["application"]) == (None, None)


def test_guards_that_were_not_read_are_unknown() -> None:
    assert {row["holds"] for row in prevention([])} == {None}
    absent = reading("statements", None, state="not_configured", code="42P01", reason="does not exist")
    told = {row["check"]: row["holds"] for row in prevention([absent])}
    assert told["pg_stat_statements is there"] is False


def test_thresholds_are_parameters() -> None:
    assert findings(vendor(), threshold_ms=5000).symptom.breached is False
    assert "L08" not in found(findings(vendor(), concentration_share=1.0))


COMPLETE = {name: make().readings() for name, (_, make) in SERVICES.items()} | {"healthy": healthy().readings()}
NAMES = sorted({reading.name for readings in COMPLETE.values() for reading in readings})


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from([*COMPLETE]),
    lost=st.sets(st.sampled_from(NAMES), min_size=1),
    state=st.sampled_from(FAILED),
)
@example(name="L11", lost={"statements", "activity"}, state="timeout")
@example(name="L08", lost={"latency_splits"}, state="timeout")
@example(name="L02", lost={"headroom"}, state="timeout")
def test_a_failed_reading_never_raises_a_cause(name: str, lost: set[str], state: str) -> None:
    complete = COMPLETE[name]
    cut: list[Reading] = [
        replace(r, state=state, reason="…", value=None) if r.name in lost else r  # type: ignore[arg-type]
        for r in complete
    ]
    before = {v.cause: v.tier for v in diagnose(complete, {}).verdict}
    for after in diagnose(cut, {}).verdict:
        if after.tier in ("confirmed", "probable"):
            assert before[after.cause] in ("confirmed", "probable"), after
            assert TIERS.index(after.tier) >= TIERS.index(before[after.cause]), after


def test_the_same_readings_give_the_same_findings() -> None:
    for readings in COMPLETE.values():
        assert json.dumps(diagnose(readings, {}).as_dict()) == json.dumps(diagnose(readings, {}).as_dict())


def test_whose_quota_is_used_up_has_to_be_known() -> None:
    nested, neighbour = throttled(), throttled()
    for service, path in ((nested, "/app.slice/web"), (neighbour, "/batch.slice")):
        more = {"host": "w1", "path": path, "cpu_quota_cores": 1.0, "cpu_periods": 100, "cpu_throttled": 0}
        service.cgroups = tuple([*rows, more] for rows in service.cgroups)
    assert [findings(service).verdict[0].tier for service in (throttled(), nested, neighbour)] == [
        "confirmed", "confirmed", "probable",
    ]  # fmt: skip
    assert findings(neighbour).verdict[0].cause == "L16"


def test_who_waits_for_a_quota_is_no_pressure_of_the_host() -> None:
    idle = throttled()
    idle.pressure = {("cpu", "some"): 78.0}
    assert findings(idle).verdict[0].cause == "L16"
    assert "L04" not in found(findings(idle))
    idle.cgroups = ()
    assert "L04" in found(findings(idle))


def test_who_waits_for_a_pool_of_a_process_that_stands_still_waits_for_the_process() -> None:
    """Seen of a worker whose quota is used up: its requests keep their connections while it stands still."""
    waits = SERVICES["L03"][1]
    assert findings(waits()).verdict[0].tier == "confirmed"
    frozen = waits()
    frozen.cgroups = throttled().cgroups
    assert found(findings(frozen))["L03"].tier == "probable"
    neighbour = {"host": "w1", "path": "/batch.slice", "cpu_quota_cores": 1.0, "cpu_periods": 9, "cpu_throttled": 0}
    frozen.cgroups = tuple([*rows, neighbour] for rows in throttled().cgroups)
    assert found(findings(frozen))["L03"].tier == "confirmed"


@pytest.mark.parametrize(("idle", "held"), [(0, {"L04"}), (60, set())])
def test_processors_that_idle_are_not_what_is_short(idle: int, held: set[str]) -> None:
    """Our own looks run at once, and a queue before a small machine's processors is soon two a core."""
    busy = processors()
    busy.ticks = ({"all_ticks": 1000, "idle_ticks": 500}, {"all_ticks": 1200, "idle_ticks": 500 + idle})
    assert set(found(findings(busy))) == held


def test_a_quota_is_held_against_idle_processors_and_not_against_who_waits_for_it() -> None:
    service = throttled()
    service.runnable = 14.0
    assert found(findings(service))["L16"].tier == "probable"
    service.ticks = ({"all_ticks": 1000, "idle_ticks": 500}, {"all_ticks": 1200, "idle_ticks": 580})
    assert {cause: v.tier for cause, v in found(findings(service)).items()} == {"L16": "confirmed"}

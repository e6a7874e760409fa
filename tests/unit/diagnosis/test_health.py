from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbook.diagnosis.health import diagnose, elsewhere, finding, ladders, prevention
from runbook.diagnosis.readings import Readings
from runbook.result import TIERS, Action, Findings, Verdict
from tests.unit.diagnosis.application import (
    COMMAND,
    HOST,
    Application,
    answer,
    bad_certificate,
    degraded,
    no_name,
    not_ready,
    refused,
    silent,
    unconnected,
)
from tests.unit.diagnosis.server import NOW, reading

FAILED = ("unreachable", "auth_failed", "permission_denied", "rate_limited", "timeout", "stale")
PATTERN = {"process_pattern": r"dist/server\.js"}
ONE, TWO, THREE = "10.0.0.1:3000", "10.0.0.2:3000", "10.0.0.3:3000"
ALL = (ONE, TWO, THREE)


def everywhere(look: dict[str, Any], *, live: dict[str, Any] | None = None, front: int = 502) -> Application:
    """Every instance is like that, and the front answers for them."""
    made = Application(outside=[answer(front)], live=[live or answer(front)])
    made.instances = {address: [look] for address in ALL}
    made.instances_live = {address: [live or look] for address in ALL}
    return made


def down() -> Application:
    made = everywhere(refused())
    made.sockets = dict.fromkeys(ALL)
    return made


def stopped() -> Application:
    made = everywhere(silent(), front=504)
    made.sockets = {address: {"state": "T"} for address in ALL}
    return made


def looping() -> Application:
    made = everywhere(silent(), front=504)
    made.sockets = {address: {"state": "R", "cpu_seconds": lambda n: 30.0 + 0.9 * n} for address in ALL}
    return made


def on_another_port() -> Application:
    made = everywhere(refused())
    made.sockets = dict.fromkeys(ALL)
    made.more_sockets = [{"host": a.partition(":")[0], "local": "0.0.0.0:8080", "pid": 4100 + n, "command": COMMAND}
                         for n, a in enumerate(ALL)]  # fmt: skip
    made.processes = [{"host": a.partition(":")[0], "pid": 4100 + n, "age_seconds": 9e4, "command": COMMAND}
                      for n, a in enumerate(ALL)]  # fmt: skip
    there = [{"vantage": "elsewhere", "http_status": 200, "layer": "", "url": "http://10.0.0.1:8080/ready"}]
    made.instead["processes"] = reading("processes", made.processes, source="host")
    made.instead["health"] = reading("walk_elsewhere", there, source="walk")
    return made


def name_gone() -> Application:
    return Application(outside=[no_name()], live=[no_name()])


def expired() -> Application:
    certificate = bad_certificate(10, expired=True, not_after="2026-02-27T00:00:00+00:00", days_left=-2.1)
    return Application(outside=[certificate], live=[certificate])


def edge() -> Application:
    return Application(outside=[answer(502)], live=[answer(502)])


def without_redis() -> Application:
    made = everywhere(not_ready(redis="ECONNREFUSED"), live=answer(), front=503)
    made.instead["redis_ping"] = reading(
        "redis_ping", None, source="redis", state="unreachable", reason="Connection refused", code="ECONNREFUSED"
    )
    return made


def too_slow() -> Application:
    late = answer(after=7400.0)
    made = everywhere(late, live=answer())
    made.outside = [late]
    made.instances = {address: [late, silent(), silent()] for address in ALL}
    return made


def moved() -> Application:
    look = answer(301, location="/healthz")
    made = everywhere(look, live=answer())
    made.outside = [look]
    return made


def starting() -> Application:
    made = everywhere(answer(503, word="starting"), live=answer(), front=503)
    made.sockets = {address: {"age_seconds": 14.0} for address in ALL}
    return made


def checker_alone() -> Application:
    made = Application()
    rows = [{"instance": f"https://{HOST}/ready", "job": "blackbox", "value": 0.0}]
    made.instead["checker"] = reading("checker", rows, source="prometheus")
    return made


def one_ill() -> Application:
    made = Application()
    made.instances[TWO] = [answer(503)]
    return made


def queue_full() -> Application:
    made = everywhere(unconnected(), front=504)
    made.sockets = {address: {"waiting": 129, "backlog": 128} for address in ALL}
    return made


def disk_full() -> Application:
    made = everywhere(not_ready(disk="ENOSPC: no space left on device"), live=answer(), front=503)
    made.disks = [{"host": "10.0.0.1", "mount": "/data", "used_percent": 100.0, "inodes_percent": 4.0}]
    made.log = {"ENOSPC": 14}
    return made


def new_release() -> Application:
    made = Application()
    old, new = answer(release="2.3.0"), answer(503, release="2.4.0", word="error")
    made.instances = {ONE: [old], TWO: [new], THREE: [new]}
    return made


def degraded_cache() -> Application:
    made = everywhere(degraded("cache"), live=answer())
    made.outside = [degraded("cache")]
    return made


SCENES: dict[str, Callable[[], Application]] = {
    "H01": down, "H02": stopped, "H02:loop": looping, "H03": on_another_port, "H04": name_gone, "H05": expired,
    "H06": edge, "H07": without_redis, "H08": too_slow, "H09": moved, "H10": starting, "H11": checker_alone,
    "H12": one_ill, "H13": queue_full, "H14": disk_full, "H15": new_release, "H16": degraded_cache,
}  # fmt: skip


def run(made: Application, **parameters: Any) -> Findings:
    return diagnose(made.readings(), PATTERN | parameters)


def found(findings: Findings) -> list[str]:
    return [v.cause for v in findings.verdict if v.tier in ("confirmed", "probable") and v.role != "consequence"
            and v.cause != "H00"]  # fmt: skip


def verdict(findings: Findings, cause: str) -> Verdict:
    return next(v for v in findings.verdict if v.cause == cause)


def action(findings: Findings, kind: str) -> Action | None:
    return next((a for a in findings.actions if a.kind == kind), None)


# -- each cause -------------------------------------------------------------------------------------------------------


def test_a_healthy_application_is_healthy() -> None:
    findings = run(Application())
    assert findings.outcome == "healthy"
    assert (found(findings), findings.actions) == ([], [])
    assert verdict(findings, "H00").tier == "confirmed"


@pytest.mark.parametrize("scene", SCENES)
def test_each_fault_is_confirmed_and_no_other(scene: str) -> None:
    findings = run(SCENES[scene]())
    cause = scene.partition(":")[0]
    assert findings.outcome == "diagnosed"
    assert found(findings) == [cause]
    assert verdict(findings, cause).tier == "confirmed"


def test_nothing_read_is_undetermined_whatever_the_cause() -> None:
    findings = diagnose([], {})
    assert findings.outcome == "undetermined"
    assert {v.tier for v in findings.verdict} == {"undetermined"}
    assert findings.symptom.value is None


def test_the_verdict_names_what_a_person_needs() -> None:
    details = {cause: verdict(run(make()), cause.partition(":")[0]).details for cause, make in SCENES.items()}
    assert details["H01"]["instances"] == list(ALL)
    assert details["H02"]["pids"] == [4000, 4001, 4002]
    assert details["H03"]["listens"] == ["0.0.0.0:8080"]
    assert details["H04"]["host"] == HOST
    assert (details["H05"]["host"], details["H05"]["not_after"]) == (HOST, "2026-02-27T00:00:00+00:00")
    assert details["H06"]["http_status"] == 502
    assert (details["H07"]["dependency"], details["H07"]["refers_to"]) == ("Redis", "K01")
    assert (details["H08"]["seconds"], details["H08"]["checker_timeout"]) == (7.4, 5.0)
    assert (details["H09"]["http_status"], details["H09"]["location"]) == (301, "/healthz")
    assert details["H12"]["instances"] == [TWO]
    assert (details["H13"]["waiting"], details["H13"]["backlog"]) == (129, 128)
    assert details["H14"]["mount"] == "/data"
    assert (details["H15"]["release"], details["H15"]["release_before"]) == ("2.4.0", "2.3.0")
    assert details["H16"]["checks"] == ["cache"]


# -- two of three -----------------------------------------------------------------------------------------------------


def test_one_bad_look_of_three_is_no_current_fault() -> None:
    made = Application(outside=[answer(503), answer(), answer()])
    findings = run(made)
    assert findings.symptom.breached is False
    assert (findings.outcome, found(findings)) == ("no_current_fault", [])


def test_two_bad_looks_of_three_are_one() -> None:
    assert run(Application(outside=[answer(502), answer(502), answer()])).symptom.breached is True


# -- at the processes -------------------------------------------------------------------------------------------------


def test_refused_without_a_look_at_the_host_stays_possible() -> None:
    made = down()
    made.instead["sockets_listening"] = reading(
        "sockets_listening", None, source="host", state="unreachable", reason="no route to host"
    )
    findings = run(made)
    assert verdict(findings, "H01").tier == "possible"
    assert findings.outcome == "undetermined"


def test_nobody_listens_and_nobody_knows_its_processes_is_probable() -> None:
    findings = diagnose(down().readings(), {})
    assert verdict(findings, "H01").tier == "probable"


def test_a_crash_loop_is_another_process_at_each_look() -> None:
    made = everywhere(refused())
    made.sockets = {address: {"pid": lambda n: 5000 + n} for address in ALL}
    made.processes = [{"host": "10.0.0.1", "pid": 5003, "command": COMMAND, "age_seconds": 1.0}]
    findings = run(made)
    details = verdict(findings, "H01").details
    assert found(findings) == ["H01"]
    assert (details["restarts"], verdict(findings, "H01").name) == (9, "down: it restarts again and again")


def test_a_process_that_ends_before_it_listens_is_a_crash_loop_and_not_starting() -> None:
    made = down()
    young = {"host": "10.0.0.1", "age_seconds": 0.4, "command": COMMAND}
    looks = [reading("processes", [young | {"pid": 700, "age_seconds": 90.0}, young | {"pid": 701 + n}], source="host")
             for n in range(3)]  # fmt: skip
    made.instances = {ONE: [refused()]}
    readings = [r for r in made.readings() if r.name != "processes"]
    findings = diagnose([*readings, *looks], PATTERN)
    assert found(findings) == ["H01"]
    assert verdict(findings, "H01").details["restarts"] == 2
    assert verdict(findings, "H10").tier == "excluded"


def test_silence_with_a_liveness_endpoint_that_answers_is_not_hung() -> None:
    """Readiness waits for something: Redis that takes connections and says nothing."""
    made = everywhere(silent(), live=answer(), front=504)
    made.instead["redis_ping"] = reading("redis_ping", None, source="redis", state="timeout", code="ETIMEDOUT")
    findings = run(made)
    assert found(findings) == ["H07"]
    assert verdict(findings, "H07").details["probe"].startswith("ETIMEDOUT")
    assert verdict(findings, "H02").tier == "excluded"


def test_silence_of_a_process_that_cannot_be_seen_is_probably_hung() -> None:
    made = stopped()
    made.instead["sockets_listening"] = reading("sockets_listening", None, source="host", state="timeout")
    assert verdict(run(made), "H02").tier == "probable"


def test_a_stopped_process_with_a_full_queue_is_hung_and_the_queue_its_consequence() -> None:
    made = stopped()
    made.instances = {address: [silent(), unconnected(), unconnected()] for address in ALL}
    made.sockets = {address: {"state": "T", "waiting": 6, "backlog": 5} for address in ALL}
    findings = run(made)
    assert found(findings) == ["H02"]
    assert verdict(findings, "H13").consequence_of == "H02"


def test_a_full_queue_without_a_hung_process_is_the_queue() -> None:
    made = queue_full()
    made.instances = {address: [silent(), unconnected(), unconnected()] for address in ALL}
    assert found(run(made)) == ["H13"]


def test_a_sibling_shows_which_process_listens_elsewhere_without_a_pattern() -> None:
    made = Application()
    made.instances[TWO] = [refused()]
    made.instances_live = {TWO: [refused()]}
    made.sockets = {TWO: None}
    made.more_sockets = [
        {"host": "10.0.0.2", "local": "127.0.0.1:3000", "pid": 77, "command": COMMAND},
        {"host": "10.0.0.2", "local": "0.0.0.0:6379", "pid": 78, "command": "redis-server *:6379"},
    ]
    findings = diagnose(made.readings(), {})
    assert verdict(findings, "H03").details["listens"] == ["127.0.0.1:3000"]
    assert elsewhere(made.readings(), {}) == [], "that host's loopback cannot be asked from here"


def moved_unknown(**changed: Any) -> Application:
    """The only instance is down, nobody said what it looks like, and a young process of a runtime listens elsewhere."""
    made = everywhere(refused())
    made.instances = {ONE: [refused()]}
    made.sockets = {ONE: None}
    row = {"host": "10.0.0.1", "local": "0.0.0.0:3001", "pid": 91, "age_seconds": 240.0, "command": COMMAND}
    made.more_sockets = [row | changed, {"host": "10.0.0.1", "local": "0.0.0.0:5432", "pid": 9, "age_seconds": 3.0,
                                         "command": "/usr/lib/postgresql/16/bin/postgres"}]  # fmt: skip
    there = {"vantage": "elsewhere", "http_status": 200, "layer": "", "instance": "10.0.0.1:3001"}
    made.instead["health"] = reading("walk_elsewhere", [there], source="walk")
    return made


def test_a_young_process_that_answers_the_same_question_elsewhere_is_probably_the_application() -> None:
    findings = diagnose(moved_unknown().readings(), {})
    assert elsewhere(moved_unknown().readings(), {}) == ["http://10.0.0.1:3001/ready"], "no database is asked"
    assert (found(findings), verdict(findings, "H03").tier) == (["H03"], "probable")
    assert verdict(findings, "H01").role == "consequence"


@pytest.mark.parametrize("changed", [{"age_seconds": 9e5}, {"command": "nginx: master process"}])
def test_old_neighbours_and_other_programs_are_not_the_application(changed: dict[str, Any]) -> None:
    made = moved_unknown(**changed)
    assert elsewhere(made.readings(), {}) == []
    assert found(diagnose(made.readings(), {})) == ["H01"]


def test_a_name_that_a_resolver_does_not_know_is_told_without_any_instance() -> None:
    made = Application(outside=[no_name()], live=[no_name()], instances={})
    assert verdict(run(made), "H04").tier == "confirmed"


def test_the_endpoint_asked_directly_is_an_origin_too() -> None:
    """Origin direct 200, public 5xx."""
    made = Application(instances={})
    rows = made.readings()[0].rows
    rows.append(rows[0] | {"endpoint": "public", "url": "https://www.example/ready", "instance": "www.example"}
                | answer(502))  # fmt: skip
    rest = [r for r in made.readings() if r.name != "walk"]
    findings = diagnose([reading("walk", rows, source="walk"), *rest], {})
    assert found(findings) == ["H06"]
    assert verdict(findings, "H06").details["host"] == "www.example"


def test_other_listeners_are_never_asked() -> None:
    made = on_another_port()
    made.more_sockets += [{"host": "10.0.0.1", "local": "0.0.0.0:5432", "pid": 9, "command": "postgres -D /data"}]
    assert elsewhere(made.readings(), PATTERN) == [f"http://10.0.0.{n}:8080/ready" for n in (1, 2, 3)]


def test_a_young_process_that_does_not_listen_yet_is_starting() -> None:
    made = down()
    made.processes = [{"host": a.partition(":")[0], "pid": 4200 + n, "age_seconds": 9.0, "command": COMMAND}
                      for n, a in enumerate(ALL)]  # fmt: skip
    findings = run(made)
    assert found(findings) == ["H10"]
    assert verdict(findings, "H01").consequence_of == "H10"


def test_what_has_been_starting_for_too_long_is_not_confirmed() -> None:
    made = starting()
    made.sockets = {}
    assert verdict(run(made), "H10").tier == "possible"


def test_a_database_that_starts_up_keeps_the_application_from_it() -> None:
    made = starting()
    made.instances = {a: [not_ready(database="the database system is starting up")] for a in ALL}
    made.instead["connection"] = reading("connection", None, state="unreachable", code="57P03", reason="starting up")
    findings = run(made)
    assert set(found(findings)) == {"H07", "H10"}
    assert verdict(findings, "H07").details["dependency"] == "database"


def test_a_process_without_files_left_is_named_with_its_limit() -> None:
    made = everywhere(silent(), front=504)
    made.sockets = {a: {"open_files": 1024, "open_files_limit": 1024} for a in ALL}
    findings = run(made)
    assert found(findings) == ["H13"]
    assert verdict(findings, "H02").consequence_of == "H13"
    assert verdict(findings, "H13").details["open_files_limit"] == 1024
    assert verdict(findings, "H13").name == "no open file left"


# -- on the way -------------------------------------------------------------------------------------------------------


def test_a_resolver_that_answers_nobody_is_ours() -> None:
    look = no_name("its name does not resolve: Temporary failure in name resolution")
    made = Application(outside=[look], live=[look])
    assert verdict(run(made), "H04").tier == "undetermined"
    made.vendors = [{"host": "api.stripe.com", "url": "https://api.stripe.com/", "dns": "ok", "answered": True,
                     "http_status": 200}]  # fmt: skip
    assert verdict(run(made), "H04").tier == "confirmed"


def test_an_address_that_is_gone_is_named() -> None:
    stale = answer(stale=[{"address": "192.0.2.9", "code": "TIMEOUT"}], after=6000.0)
    made = Application(outside=[stale], live=[answer()])
    findings = run(made)
    assert verdict(findings, "H04").details["stale_addresses"] == ["192.0.2.9"]


def test_localhost_without_ipv6_points_at_nothing_that_is_gone() -> None:
    made = Application(outside=[answer(stale=[{"address": "::1", "code": "ECONNREFUSED"}])])
    assert run(made).outcome == "healthy"


@pytest.mark.parametrize(
    ("look", "problem", "tier"),
    [
        (bad_certificate(10, expired=True), "expired", "confirmed"),
        (bad_certificate(18, expired=True, self_signed=True), "expired", "confirmed"),
        (bad_certificate(9, not_yet_valid=True), "not yet valid", "confirmed"),
        (bad_certificate(62, names_host=False, names=["other.example"]), "name", "confirmed"),
        (bad_certificate(20), "issuer", "probable"),
        (bad_certificate(18, self_signed=True), "issuer", "probable"),
        ({"layer": "tls", "tls": "failed", "code": "TLS", "reason": "TLS: WRONG_VERSION_NUMBER", "dns": "ok",
          "tcp": "ok"}, "handshake", "confirmed"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_certificate_is_told_and_how_sure_it_is(
    look: dict[str, Any], problem: str, tier: str
) -> None:
    findings = run(Application(outside=[look], live=[look]))
    assert found(findings) == ["H05"]
    assert (verdict(findings, "H05").details["problem"], verdict(findings, "H05").tier) == (problem, tier)


def test_a_clock_of_ours_that_is_off_expires_no_certificate() -> None:
    look = bad_certificate(10, expired=True, skew=-90 * 86_400.0)
    assert "H05" not in [c for c in found(run(Application(outside=[look]))) if verdict(
        run(Application(outside=[look])), c).tier == "confirmed"]  # fmt: skip


def test_an_expired_certificate_hides_no_second_fault() -> None:
    made = without_redis()
    look = bad_certificate(10, expired=True, behind=not_ready(redis="ECONNREFUSED"))
    made.outside = [look]
    assert set(found(run(made))) == {"H05", "H07"}


def test_the_edge_is_not_blamed_for_what_instances_fail_at() -> None:
    for make in (down, stopped, without_redis, queue_full):
        assert verdict(run(make()), "H06").tier == "excluded"


def test_instances_in_a_network_of_their_own_are_unknown_and_not_ill() -> None:
    made = edge()
    made.instances = {address: [unconnected()] for address in ALL}
    made.sockets = {}
    made.instead["sockets_listening"] = reading("sockets_listening", None, source="host", state="timeout")
    findings = run(made)
    assert (found(findings), findings.outcome) == ([], "undetermined")
    assert "cannot be reached from here" in next(
        e.reason for e in findings.evidence if e.id == "H06.origin" and e.reason
    )


def test_an_instance_that_wants_the_public_host_name_is_unknown_and_not_ill() -> None:
    made = Application()
    made.instances = {address: [answer(404)] for address in ALL}
    assert found(run(made)) == []


def test_not_found_at_one_instance_alone_is_that_instance() -> None:
    made = Application()
    made.instances[TWO] = [answer(404)]
    assert "H12" in found(run(made))


def test_a_page_that_nobody_called_a_health_endpoint_says_nothing() -> None:
    for status in (200, 301, 401, 404):
        made = Application(outside=[answer(status)], endpoint="root", instances={})
        made.live = [{"layer": "url", "code": "URL", "reason": "not a URL that can be asked"}]
        findings = run(made)
        assert (findings.outcome, found(findings)) == ("undetermined", [])


def test_the_checker_is_wrong_only_while_it_still_says_down() -> None:
    made = checker_alone()
    made.instead["checker"] = reading("checker", [], source="prometheus")
    assert verdict(run(made), "H11").tier == "excluded"
    made = checker_alone()
    made.outside = [answer(503)]
    assert "H11" not in found(run(made))


# -- dependencies -----------------------------------------------------------------------------------------------------


def test_a_dependency_never_restarts_the_application() -> None:
    findings = run(without_redis())
    assert [a.kind for a in findings.actions] == ["dependency.treat"]
    assert "do not restart" in findings.actions[0].by_hand


def test_a_system_that_the_application_calls_well_is_not_blamed() -> None:
    made = without_redis()
    look = answer(503, checks=[{"name": "redis", "status": "pass"}, {"name": "search", "status": "fail",
                                                                     "output": "timeout"}])  # fmt: skip
    made.instances = {address: [look] for address in ALL}
    findings = run(made)
    assert verdict(findings, "H07").details["dependency"] == "search"
    assert verdict(findings, "H07").tier == "probable", "by its word alone"


def test_a_plain_503_with_a_probe_that_fails_names_that_system() -> None:
    made = without_redis()
    made.instances = {address: [answer(503)] for address in ALL}
    assert verdict(run(made), "H07").tier == "confirmed"


def test_a_password_of_ours_that_is_refused_says_nothing_of_redis() -> None:
    made = without_redis()
    made.instances = {address: [answer(503)] for address in ALL}
    made.instead["redis_ping"] = reading("redis_ping", None, source="redis", state="auth_failed", code="WRONGPASS")
    findings = run(made)
    assert (verdict(findings, "H07").tier, findings.outcome) == ("undetermined", "undetermined")


def test_two_systems_that_are_down_are_both_named() -> None:
    made = without_redis()
    made.instances = {a: [not_ready(redis="ECONNREFUSED", database="ECONNREFUSED")] for a in ALL}
    made.instead["connection"] = reading("connection", None, state="unreachable", code="ECONNREFUSED")
    assert verdict(run(made), "H07").details["dependencies"] == ["Redis", "database"]


@pytest.mark.parametrize(("code", "refers_to"), [("ECONNREFUSED", "K01"), ("LOADING", "K10"), ("MISCONF", "K08"),
                                                 ("MAXCLIENTS", "K05")])  # fmt: skip
def test_redis_refers_to_its_own_finding(code: str, refers_to: str) -> None:
    made = without_redis()
    made.instead["redis_ping"] = reading("redis_ping", None, source="redis", state="unreachable", code=code)
    assert verdict(run(made), "H07").details["refers_to"] == refers_to


def test_a_vendor_is_known_by_its_host_and_by_its_name() -> None:
    made = everywhere(not_ready(stripe="503"), live=answer(), front=503)
    made.vendors = [{"host": "api.stripe.com", "url": "https://api.stripe.com/", "dns": "ok", "answered": True,
                     "http_status": 503}]  # fmt: skip
    findings = run(made)
    assert (verdict(findings, "H07").details["dependency"], verdict(findings, "H07").tier) == (
        "api.stripe.com", "confirmed")  # fmt: skip


def test_a_503_of_which_nobody_can_tell_whose_it_is_names_nothing() -> None:
    made = Application(outside=[answer(503)], instances={})
    made.live = [{"layer": "url", "code": "URL", "reason": "not a URL that can be asked"}]
    readings = [r for r in made.readings() if r.name != "walk"]
    rows = next(r for r in made.readings() if r.name == "walk").rows[:1]
    findings = diagnose([*readings, reading("walk", rows, source="walk")], {})
    assert (found(findings), findings.outcome) == ([], "undetermined")
    assert verdict(findings, "H07").tier == "undetermined"


# -- behind the endpoint ----------------------------------------------------------------------------------------------


def test_a_full_disk_that_nobody_complains_of_is_only_possible() -> None:
    made = Application()
    made.disks = [{"host": "10.0.0.1", "mount": "/data", "used_percent": 100.0}]
    findings = run(made)
    assert (found(findings), findings.outcome) == ([], "healthy")


def test_a_deployment_nearby_is_no_proof() -> None:
    made = everywhere(answer(503, word="error"), live=answer(), front=503)
    made.deployments = [{"sha": "abc", "state": "success", "created_at": "2026-03-01T02:50:00+00:00",
                         "finished_at": "2026-03-01T02:55:00+00:00"}]  # fmt: skip
    made.sockets = {address: {"age_seconds": 250.0} for address in ALL}
    findings = run(made)
    assert verdict(findings, "H15").tier == "probable"
    assert action(findings, "deploy.rollback") is None
    made.sockets = {}
    made.instead["redis_ping"] = reading("redis_ping", None, source="redis", state="timeout")
    assert "H15" not in found(run(made))


def test_a_rollback_is_proposed_by_what_the_releases_show() -> None:
    rollback = action(run(new_release()), "deploy.rollback")
    assert rollback is not None
    assert rollback.title == "Stop the roll-out of 2.4.0 and go back to 2.3.0"
    (target,) = rollback.targets
    assert (target["from"], target["to"]) == ("2.4.0", "2.3.0")
    assert target["instances"]
    assert [p.holds for p in rollback.preconditions] == [True, None]


def test_degraded_refers_to_what_is_down() -> None:
    made = without_redis()
    made.instances = {address: [degraded("redis")] for address in ALL}
    made.outside = [degraded("redis")]
    findings = run(made)
    assert found(findings) == ["H16"]
    assert verdict(findings, "H16").details["refers_to"] == "K01"


# -- actions ----------------------------------------------------------------------------------------------------------


def test_one_instance_is_restarted_while_the_others_are_well() -> None:
    made = Application()
    made.instances[TWO], made.instances_live = [silent()], {TWO: [silent()]}
    made.sockets = {TWO: {"state": "T"}}
    findings = run(made)
    assert found(findings) == ["H12", "H02"]
    assert verdict(findings, "H12").details["why"] == {TWO: "H02"}
    restart = action(findings, "app.restart_instance")
    assert restart is not None
    assert restart.targets == [{"instance": TWO, "host": "10.0.0.2", "pid": 4001, "command": COMMAND}]
    assert "kill -CONT 4001" in restart.by_hand


def test_no_instance_is_restarted_while_all_are_ill() -> None:
    for make in (down, stopped, without_redis, disk_full, new_release):
        assert action(run(make()), "app.restart_instance") is None


def test_hostile_names_stay_data_in_what_is_copied() -> None:
    look = no_name()
    made = Application(outside=[look], live=[look])
    rows = [r | {"instance": "$(reboot).example:443"} for r in made.readings()[0].rows]
    findings = diagnose([reading("walk", rows, source="walk"), *made.readings()[3:]], PATTERN)
    correct = action(findings, "dns.correct_record")
    assert correct is not None
    assert "'$(reboot).example'" in correct.by_hand


def test_a_pattern_that_is_no_expression_is_taken_as_text() -> None:
    assert run(down(), process_pattern="node [dist").outcome == "diagnosed"


# -- what else the room gives -----------------------------------------------------------------------------------------


def test_another_room_gets_the_leading_finding() -> None:
    leading = finding(Readings(without_redis().readings()), PATTERN)
    assert leading is not None
    assert leading.cause == "H07"
    assert finding(Readings(Application().readings())) is None
    assert finding(Readings([])) is None


def test_prevention_is_read_from_what_was_seen() -> None:
    rows = {row["check"]: row["holds"] for row in prevention(without_redis().readings())}
    assert rows["a liveness endpoint that depends on nothing else"] is True
    assert rows["several instances, known to the runbook"] is True
    assert all(row["holds"] is None for row in prevention([]))
    bad = Application(live=[answer(checks=[{"name": "redis", "status": "pass"}])])
    assert prevention(bad.readings())[0]["holds"] is False


def test_the_ladder_ends_at_the_first_layer_that_fails_and_knows_what_it_did_not_come_to() -> None:
    readings = expired().readings()
    outside, inside = ladders(readings, PATTERN, diagnose(readings, PATTERN))
    assert [r.state for r in outside.rungs] == ["passes", "passes", "fails", "unknown", "unknown", "passes"]
    assert (outside.causes, inside.vantage) == (("H05",), "inside")
    assert "fails" not in [r.state for r in inside.rungs]


def test_the_ladder_shows_what_most_looks_found() -> None:
    readings = Application(outside=[answer(), answer(), answer(503)]).readings()
    outside = ladders(readings, PATTERN, diagnose(readings, PATTERN))[0]
    assert outside.rungs[3].note == "200 · 20 ms"


def test_the_ladder_names_the_dependency() -> None:
    readings = without_redis().readings()
    ladder = ladders(readings, PATTERN, diagnose(readings, PATTERN))[0]
    assert (ladder.rungs[-1].state, ladder.rungs[-1].note) == ("fails", "Redis: ECONNREFUSED Connection refused")
    assert ladders([], {}, None) == []


# -- properties -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", SCENES)
def test_the_same_readings_give_the_same_bytes(scene: str) -> None:
    readings = SCENES[scene]().readings()
    first = json.dumps(diagnose(readings, PATTERN).as_dict())
    assert first == json.dumps(diagnose(list(readings), dict(PATTERN)).as_dict())


NAMES = sorted({r.name for r in Application().readings()})


@settings(max_examples=150, deadline=None)
@given(
    scene=st.sampled_from(sorted(SCENES)),
    lost=st.sets(st.sampled_from(NAMES), min_size=1, max_size=4),
    state=st.sampled_from(FAILED),
)
@example(scene="H13", lost={"sockets_listening"}, state="timeout")
@example(scene="H03", lost={"processes"}, state="timeout")
@example(scene="H07", lost={"redis_ping"}, state="timeout")
def test_a_failed_reading_never_raises_a_cause(scene: str, lost: set[str], state: str) -> None:
    readings = SCENES[scene]().readings()
    before = {v.cause: TIERS.index(v.tier) for v in diagnose(readings, PATTERN).verdict if v.tier != "undetermined"}
    failed = [replace(r, value=None, state=state, reason="lost", code="") if r.name in lost else r for r in readings]  # type: ignore[arg-type]
    after = diagnose(failed, PATTERN)
    for v in after.verdict:
        if v.tier in ("confirmed", "probable") and v.cause in before:
            assert before[v.cause] <= TIERS.index(v.tier), (v.cause, v.tier, sorted(lost))
    assert after.outcome != "healthy"


def test_a_healthy_application_with_a_reading_lost_is_never_ill() -> None:
    generator = random.Random(7)
    for _ in range(60):
        lost = set(generator.sample(NAMES, generator.randint(1, 5)))
        readings = [replace(r, value=None, state="unreachable", reason="lost") if r.name in lost else r
                    for r in Application().readings()]  # fmt: skip
        findings = diagnose(readings, PATTERN)
        assert found(findings) == [], sorted(lost)
        if "walk" in lost:
            assert findings.outcome == "undetermined"


assert NOW  # the clock of these readings

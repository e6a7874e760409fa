"""The rules of the error-rate runbook, on services described by the requests that they got."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbook.diagnosis.errors import diagnose
from runbook.result import TIERS, Findings, Reading
from tests.unit.diagnosis.server import Server
from tests.unit.diagnosis.service import Service, at, deployment, issue, probe, reading, workflow

FAILED = ("unreachable", "auth_failed", "permission_denied", "rate_limited", "timeout", "stale")
OLD, NEW = "1.8.0", "1.9.0"
PAY, FILM = "pay.acme.example", "film.acme.example"


def ordinary(requests: int = 3000, **how: Any) -> Service:
    """Four instances of one release, two vendors, next to no errors."""
    service = Service(deployments=[deployment(3000, "a" * 40, OLD), deployment(9000, "b" * 40, "1.7.9")])
    for name in ("a1", "a2", "a3", "a4"):
        service.add(requests // 5, 1, instance=name, **how)
    service.add(requests // 10, 0, upstream=PAY, route="POST /orders", instance="a1", **how)
    service.add(requests // 10, 0, upstream=FILM, route="POST /films", instance="a2", **how)
    service.hosts = [probe(PAY), probe(FILM)]
    service.pages = [{"vendor": "acme", "indicator": "none", "incidents": [], "components": []}]
    return service


def failing(requests: int = 2400, errors: int = 360, **how: Any) -> Service:
    """Something fails on all four instances alike."""
    service = Service(hosts=[probe(PAY), probe(FILM)])
    for name in ("a1", "a2", "a3", "a4"):
        service.add(requests // 4, errors // 4, instance=name, **how)
    service.add(300, 0, upstream=FILM, route="POST /films")
    return service


def bad_release(**how: Any) -> Service:
    service = Service(overlap=(OLD, NEW), **how)
    for name, release, errors in (("a1", OLD, 1), ("a2", OLD, 1), ("a3", NEW, 180), ("a4", NEW, 180)):
        service.add(600, errors, instance=name, release=release)
    service.deployments = [deployment(9, "c" * 40, f"v{NEW}"), deployment(3000, "a" * 40, f"v{OLD}")]
    service.add(200, 0, upstream=PAY, route="POST /orders", instance="a1")
    service.hosts = [probe(PAY)]
    return service


def replaced_release() -> Service:
    service = failing(release=NEW)
    service.deployments = [deployment(9, "c" * 40, f"v{NEW}"), deployment(3000, "a" * 40, f"v{OLD}")]
    service.issues = [issue(7, is_new=True, first_release=f"shop@{NEW}", count=900)]
    return service


def configuration() -> Service:
    service = failing()
    service.deployments = [deployment(3000, "a" * 40, OLD)]
    service.runs = [workflow(9, "Update configuration")]
    return service


def full_database() -> Service:
    service = failing()
    server = Server(connection={"via": "reserve", "refused": True, "refused_code": "53300"})
    server.add(97, state="idle in transaction", age=120, app="reports")
    service.server, service.log = server, [("53300", 350)]
    return service


def read_only() -> Service:
    service = failing()
    service.log = [("25006", 340)]
    service.state = {"standby": False, "read_only": "off", "read_only_for": "role web"}
    return service


def schema() -> Service:
    service = failing()
    service.log, service.migrations = [("42703", 355)], ["db/migrations/7.sql"]
    service.deployments = [deployment(9, "c" * 40, "main"), deployment(3000, "a" * 40, "main")]
    return service


def vendor(outcome: str = "error", *, errors: int = 300, calls: int = 320, host: str = PAY, **how: Any) -> Service:
    service = ordinary()
    service.add(calls, errors, upstream=host, outcome=outcome, route="POST /orders", status=502, instance="a3", **how)
    for name in ("a1", "a2", "a4"):
        service.add(
            calls, errors, upstream=host, outcome=outcome, route="POST /orders", status=502, instance=name, **how
        )
    return service


def surge() -> Service:
    service = Service(baseline_rate=3.0, p95=900.0, log=[("other error", 300)])
    for name in ("a1", "a2", "a3", "a4"):
        service.add(900, 120, instance=name, status=503)
    return service


def one_client() -> Service:
    service = ordinary(1500)
    service.add(3000, 1800, client="203.0.113.9", user="-", status=503, instance=None, release=None)
    service.baseline_rate = 5.0
    return service


def edge() -> Service:
    service = ordinary()
    service.add(1000, 900, status=502, instance=None, release=None)
    return service


def bad_instance() -> Service:
    service = ordinary()
    service.add(700, 600, instance="a3")
    return service


def expired_certificate() -> Service:
    service = vendor("refused")
    service.hosts = [
        probe(PAY, tls="failed", verify_code=10, answered=False, http_status=None, code="TLS"),
        probe(FILM),
    ]
    return service


def redis_down() -> Service:
    service = failing()
    service.log = [("Redis ECONNREFUSED", 350)]
    service.instead = [
        reading("redis_ping", None, source="redis", state="unreachable", code="ECONNREFUSED", reason="…")
    ]
    return service


def disk_full() -> Service:
    service = failing()
    service.log = [("ENOSPC", 350)]
    service.disks = [{"host": "w1", "mount": "/data", "used_percent": 100, "inodes_percent": 3}]
    return service


def hung_up() -> Service:
    service = ordinary()
    service.closed_by_client = service.requests // 3
    return service


def discord() -> Service:
    service = ordinary()
    service.add(40, 40, upstream="discord.com", outcome="throttled", route="POST /hooks", instance="a4")
    return service


def bad_data() -> Service:
    service = ordinary()
    for name in ("a1", "a2", "a3", "a4"):
        service.add(125, 112, route="GET /items/:id/export", user="u77", client="10.9.0.3", instance=name)
    service.issues = [issue(9, is_new=True, first_release=OLD, users=1, count=450)]
    return service


SERVICES: dict[str, Callable[[], Service]] = {
    "E01": bad_release, "E02": configuration, "E03": full_database, "E04": read_only, "E05": schema, "E06": vendor,
    "E07": lambda: vendor("auth"), "E08": lambda: vendor("throttled"), "E09": surge, "E10": one_client, "E11": edge,
    "E12": bad_instance, "E13": expired_certificate, "E14": redis_down, "E15": disk_full, "E16": hung_up,
    "E17": discord, "E18": bad_data,
}  # fmt: skip


def found(findings: Findings) -> list[str]:
    return [v.cause for v in findings.verdict if v.tier in ("confirmed", "probable") and v.role != "consequence"]


def of(findings: Findings, cause: str) -> Any:
    return next(v for v in findings.verdict if v.cause == cause)


@pytest.mark.parametrize("cause", SERVICES)
def test_each_cause_is_found_first_and_alone(cause: str) -> None:
    findings = diagnose(SERVICES[cause]().readings(), {})
    assert findings.outcome == "diagnosed"
    assert found(findings) == [cause]
    assert findings.verdict[0].tier == "confirmed"


def test_ordinary_traffic_is_healthy() -> None:
    findings = diagnose(ordinary().readings(), {})
    assert findings.outcome == "healthy"
    assert found(findings) == []
    assert findings.symptom.breached is False


# -- is it real? ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("requests", "errors"), [(20, 3), (20, 20), (99, 50), (120, 8), (400, 22)])
def test_too_few_requests_say_nothing(requests: int, errors: int) -> None:
    """Below 100 requests, or with a lower bound below the threshold, a rate may be chance."""
    service = Service(hosts=[probe(PAY)]).add(requests, errors, instance="a1")
    service.add(0, 0, instance="a2")
    findings = diagnose(service.readings(), {})
    assert findings.outcome == "insufficient_data"
    assert found(findings) == []
    assert findings.symptom.breached is not True


@pytest.mark.parametrize(
    "requests",
    [
        reading("requests", {"requests": 0, "errors": 0, "window_seconds": 300}),
        reading("requests", None, state="not_configured", reason="traffic.access_log is not set"),
        reading("requests", None, state="stale", reason="nobody writes to the log"),
    ],
)
def test_without_a_request_counted_the_outcome_is_undetermined(requests: Reading) -> None:
    service = ordinary()
    service.instead = [requests]
    findings = diagnose(service.readings(), {})
    assert findings.outcome == "undetermined"
    assert findings.symptom.value is None
    assert findings.symptom.breached is None
    assert findings.impact.startswith("Unknown")


def test_a_rate_seen_in_one_sample_of_three_is_gone() -> None:
    readings = ordinary().readings()
    first = next(n for n, r in enumerate(readings) if r.name == "requests")
    readings[first] = replace(readings[first], value=readings[first].value | {"errors": 1500, "peak_percent": 50.0})
    findings = diagnose(readings, {})
    assert findings.outcome == "no_current_fault"
    assert findings.symptom.peak == 50.0


def test_two_samples_of_three_are_an_incident() -> None:
    readings = failing().readings()
    first = next(n for n, r in enumerate(readings) if r.name == "requests")
    readings[first] = replace(readings[first], value=readings[first].value | {"errors": 0})
    assert diagnose(readings, {}).symptom.breached is True


def test_a_peak_within_the_window_is_told_when_the_rate_is_low_now() -> None:
    readings = ordinary().readings()
    for r in readings:
        if r.name == "request_curve":
            r.value[20]["errors"] = r.value[20]["requests"]
    findings = diagnose(readings, {})
    assert findings.outcome == "no_current_fault"
    assert findings.symptom.peak == 100


def test_errors_that_nothing_explains_are_undetermined_and_wholly_unexplained() -> None:
    findings = diagnose(failing().readings(), {})
    assert findings.outcome == "undetermined"
    assert found(findings) == []
    assert findings.unexplained == 1.0
    assert [a.kind for a in findings.actions] == ["discord.post"]


def test_nothing_read_at_all_is_undetermined_and_judges_every_cause() -> None:
    findings = diagnose([], {})
    assert findings.outcome == "undetermined"
    assert sorted(v.cause for v in findings.verdict) == [f"E{n:02}" for n in range(1, 19)]
    assert {v.tier for v in findings.verdict} == {"undetermined"}


# -- the drill set ----------------------------------------------------------------------------------------------------


def test_s01_a_new_release_that_fails_beside_the_old_one() -> None:
    findings = diagnose(bad_release().readings(), {})
    assert found(findings) == ["E01"]
    details = of(findings, "E01").details
    assert (details["release"], details["previous_release"]) == (NEW, OLD)
    assert details["error_percent"] == 30
    assert details["previous_error_percent"] < 0.3
    assert of(findings, "E06").tier == of(findings, "E09").tier == "excluded"


def test_s02_a_vendor_that_fails_while_its_page_is_green_and_somebody_deployed() -> None:
    service = vendor()
    service.deployments = [deployment(28, "c" * 40, "main"), deployment(3000, "a" * 40, "main")]
    findings = diagnose(service.readings(), {})
    assert found(findings) == ["E06"]
    assert of(findings, "E06").details["host"] == PAY
    assert of(findings, "E06").details["status_page"] == "none"
    assert of(findings, "E01").tier == "excluded"


def test_s02_a_deployment_just_before_the_vendor_failed_is_not_blamed_either() -> None:
    service = vendor()
    service.deployments = [deployment(10, "c" * 40, NEW), deployment(3000, "a" * 40, OLD)]
    service.issues = [issue(3, is_new=True, first_release="c" * 40, count=500)]
    assert found(diagnose(service.readings(), {})) == ["E06"]


def test_s03_one_address_that_meets_its_limit_is_no_surge() -> None:
    findings = diagnose(one_client().readings(), {})
    assert found(findings)[0] == "E10"
    assert of(findings, "E10").details["client"] == "203.0.113.9"
    assert "E09" not in found(findings)


def test_s05_full_slots_are_found_while_sentry_refuses_and_nobody_says_no_errors() -> None:
    service = full_database()
    refused = {"source": "sentry", "state": "auth_failed", "reason": "401: Invalid token"}
    service.instead = [reading(n, None, **refused) for n in ("sentry_issues", "sentry_releases")]  # type: ignore[arg-type]
    findings = diagnose(service.readings(), {})
    assert found(findings) == ["E03"]
    assert of(findings, "E03").details["refers_to"] == "P01"
    assert of(findings, "E03").details["application_name"] == "reports"
    assert [(n.source, n.state) for n in findings.not_checked] == [("sentry", "auth_failed")]
    assert "no errors" not in json.dumps(findings.as_dict()).lower()


# -- releases ---------------------------------------------------------------------------------------------------------


def test_a_release_that_replaced_the_old_one_needs_its_own_new_issue() -> None:
    assert found(diagnose(replaced_release().readings(), {})) == ["E01"]
    service = replaced_release()
    service.issues = []
    findings = diagnose(service.readings(), {})
    assert found(findings) == []
    assert of(findings, "E01").tier == "possible"


def test_without_github_the_releases_that_sentry_was_told_of_are_the_roll_outs() -> None:
    service = replaced_release()
    service.releases = [{"version": f"shop@{NEW}", "created_at": at(11), "released_at": at(9)}]
    service.instead = [
        reading(n, None, source="github", state="not_configured", reason="github.token is not set")
        for n in ("deployments", "workflow_runs", "compare")
    ]
    findings = diagnose(service.readings(), {})
    assert found(findings) == ["E01"]
    assert findings.actions[0].kind == "discord.post", "nobody knows what to roll back to"


@pytest.mark.parametrize("minutes", [8.5, 9, 15, 22])
def test_errors_within_fifteen_minutes_after_a_roll_out_may_come_from_it(minutes: float) -> None:
    service = replaced_release()
    service.deployments[0] = deployment(minutes, "c" * 40, f"v{NEW}")
    assert found(diagnose(service.readings(), {})) == ["E01"]


@pytest.mark.parametrize("minutes", [3, 24, 90])
def test_errors_that_began_before_or_long_after_a_roll_out_do_not(minutes: float) -> None:
    service = replaced_release()
    service.deployments[0] = deployment(minutes, "c" * 40, f"v{NEW}")
    assert "E01" not in found(diagnose(service.readings(), {}))


@pytest.mark.parametrize("state", ["failure", "error", "queued"])
def test_a_deployment_that_never_reached_production_is_no_suspect(state: str) -> None:
    service = replaced_release()
    service.deployments[0]["state"] = state
    assert "E01" not in found(diagnose(service.readings(), {}))


def test_an_old_release_that_fails_beside_a_new_one_is_no_bad_release() -> None:
    service = bad_release()
    for lot in service.lots:
        lot.release = {OLD: NEW, NEW: OLD}[lot.release or ""]
    findings = diagnose(service.readings(), {})
    assert "E01" not in found(findings)
    assert of(findings, "E01").tier == "excluded"


def test_which_release_is_newer_is_not_guessed_from_commit_hashes() -> None:
    service = bad_release()
    for lot in service.lots:
        lot.release = {OLD: "beef123", NEW: "cafe456"}[lot.release or ""]
    service.overlap, service.deployments = ("beef123", "cafe456"), []
    assert of(diagnose(service.readings(), {}), "E01").tier == "undetermined"
    service.deployments = [deployment(9, "cafe456" + "0" * 33), deployment(3000, "beef123" + "0" * 33)]
    assert found(diagnose(service.readings(), {})) == ["E01"]


def test_an_instance_that_runs_the_new_release_alone_is_a_consequence_of_the_release() -> None:
    service = bad_release()
    service.lots = [lot for lot in service.lots if lot.instance != "a4"]
    findings = diagnose(service.readings(), {})
    assert found(findings) == ["E01"]
    assert (of(findings, "E12").role, of(findings, "E12").consequence_of) == ("consequence", "E01")


def test_an_instance_that_fails_long_after_it_got_its_release_is_the_cause_itself() -> None:
    service = bad_release()
    service.lots = [lot for lot in service.lots if lot.instance != "a4"]
    service.deployments[0] = deployment(600, "c" * 40, f"v{NEW}")
    assert found(diagnose(service.readings(), {})) == ["E12"]


def test_one_bad_instance_of_the_new_release_does_not_convict_the_release() -> None:
    service = Service(overlap=(OLD, NEW), deployments=bad_release().deployments)
    for name, release, errors in (("a1", OLD, 1), ("a2", OLD, 1), ("a3", NEW, 400), ("a4", NEW, 1)):
        service.add(600, errors, instance=name, release=release)
    assert found(diagnose(service.readings(), {})) == ["E12"]


def test_a_vendor_that_only_the_new_release_calls_is_the_cause_of_its_failures() -> None:
    service = vendor()
    for lot in service.lots:
        lot.release = NEW if lot.upstream == PAY else OLD
    service.overlap, service.deployments = (OLD, NEW), bad_release().deployments
    findings = diagnose(service.readings(), {})
    assert found(findings) == ["E06"]
    assert of(findings, "E01").consequence_of == "E06"


def test_a_rollback_is_proposed_for_a_confirmed_release_with_the_commit_that_stood_before() -> None:
    findings = diagnose(bad_release().readings(), {})
    action = findings.actions[0]
    assert action.kind == "deploy.rollback"
    assert "a" * 40 in action.by_hand
    assert "c" * 40 in action.undo
    (target,) = action.targets
    assert (target["from"], target["to"], target["environment"]) == ("c" * 40, "a" * 40, "production")
    (post,) = [a for a in findings.actions if a.kind == "discord.post"]
    assert "High error rate" in post.targets[0]["content"]
    assert [p.holds for p in action.preconditions] == [True, True, True, None]


@pytest.mark.parametrize("hinder", ["a migration", "nothing before it"])
def test_no_rollback_across_a_migration_or_to_nowhere(hinder: str) -> None:
    service = bad_release()
    if hinder == "a migration":
        service.migrations = ["prisma/migrations/1_drop/migration.sql"]
    else:
        service.deployments = service.deployments[:1]
    findings = diagnose(service.readings(), {})
    assert found(findings) == ["E01"]
    assert [a.kind for a in findings.actions] == ["discord.post"]


def test_a_change_of_configuration_names_what_was_changed() -> None:
    findings = diagnose(configuration().readings(), {})
    assert of(findings, "E02").details["change"] == "Update configuration"


def test_the_same_commit_deployed_again_is_a_change_of_configuration() -> None:
    service = configuration()
    service.runs = []
    service.deployments = [deployment(9, "a" * 40, OLD), deployment(3000, "a" * 40, OLD)]
    assert found(diagnose(service.readings(), {})) == ["E02"]


@pytest.mark.parametrize("run", [workflow(9, "tests", event="push"), workflow(40, "Update configuration"),
                                 workflow(9, "Update configuration", conclusion="failure")])  # fmt: skip
def test_runs_that_change_nothing_just_then_are_no_suspects(run: dict[str, Any]) -> None:
    service = configuration()
    service.runs = [run]
    assert found(diagnose(service.readings(), {})) == []


def test_a_change_is_not_blamed_for_what_a_vendor_explains() -> None:
    service = vendor("auth")
    service.runs = [workflow(9, "Rotate secrets")]
    assert found(diagnose(service.readings(), {})) == ["E07"]


# -- vendors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["error", "timeout"])
@pytest.mark.parametrize("host", ["api.stripe.com", "eu.api.payments.co.uk", "gateway-7.acme.example"])
def test_a_vendor_outage_is_found_under_any_name(outcome: str, host: str) -> None:
    findings = diagnose(vendor(outcome, host=host).readings(), {})
    assert found(findings) == ["E06"]
    assert of(findings, "E06").details["host"] == host


@pytest.mark.parametrize(("host", "name"), [("api.stripe.com", "stripe"), ("bucket.s3.eu-west-1.amazonaws.com", "aws"),
                                            ("eu.api.payments.co.uk", "payments")])  # fmt: skip
def test_a_vendor_is_named_by_its_status_page_or_by_its_host(host: str, name: str) -> None:
    service = vendor(host=host)
    service.pages = [{"vendor": v, "indicator": "none"} for v in ("stripe", "aws")]
    assert of(diagnose(service.readings(), {}), "E06").details["vendor"] == name


def test_a_status_page_alone_convicts_nobody() -> None:
    service = failing()
    service.pages = [{"vendor": "acme", "indicator": "critical"}]
    assert found(diagnose(service.readings(), {})) == []


def test_a_vendor_whose_failures_we_swallow_is_not_to_blame() -> None:
    """A fifth of its calls fail, and yet the failing requests are others."""
    service = failing()
    service.add(400, 0, upstream=PAY, route="POST /orders")
    for row in (readings := service.readings()):
        for host in row.value if row.name == "upstreams" else []:
            if host["host"] == PAY:
                host |= {"upstream_errors": 200}
    assert "E06" not in found(diagnose(readings, {}))


def test_failures_that_touch_a_vendor_and_calls_that_fail_there_must_be_the_same_requests() -> None:
    service = vendor()
    readings = service.readings()
    for row in readings:
        for host in row.value if row.name == "upstreams" else []:
            host |= {"failing_with_error": 30 if host["host"] == PAY else 0}
    assert "E06" not in found(diagnose(readings, {}))


def test_kills_for_memory_that_a_host_does_not_tell_are_unknown() -> None:
    service = failing()
    service.log = [("OOM", 350)]
    service.instead = [reading("worker_memory", [{"host": "w1", "oom_kills": ""}], source="shell")]
    evidence = {e.id: e.reading for e in diagnose(service.readings(), {}).evidence}
    assert evidence["E15.now"] == "unknown"


def test_a_vendor_that_every_request_touches_is_not_blamed_for_being_touched() -> None:
    service = failing(upstream=PAY)
    assert "E06" not in found(diagnose(service.readings(), {}))


def test_calls_that_never_left_us_are_our_own_fault_when_the_vendor_answers_a_probe() -> None:
    service = vendor("refused")
    service.log = [("57P03", 1100)]
    findings = diagnose(service.readings(), {})
    assert "E06" not in found(findings)


def test_a_vendor_that_takes_no_connection_from_anybody_is_down() -> None:
    service = vendor("refused")
    service.hosts = [probe(PAY, answered=False, code="ECONNREFUSED", http_status=None, tls=None), probe(FILM)]
    assert found(diagnose(service.readings(), {})) == ["E06"]


def test_an_upstream_that_is_our_own_backend_is_no_vendor() -> None:
    for host in ("10.0.3.4:3000", "web-2", "api.prod.svc.cluster.local", "127.0.0.1"):
        findings = diagnose(vendor(host=host, known_host=False).readings(), {})
        assert "E06" not in found(findings), host


def test_two_vendors_that_fail_together_are_not_one_confirmed_outage() -> None:
    service = vendor()
    service.add(1280, 1200, upstream=FILM, outcome="error", route="POST /films", status=502, instance="a2")
    findings = diagnose(service.readings(), {})
    assert of(findings, "E06").tier in ("probable", "possible")


@pytest.mark.parametrize(("outcome", "cause"), [("auth", "E07"), ("throttled", "E08"), ("error", "E06")])
def test_what_a_vendor_answers_makes_the_cause(outcome: str, cause: str) -> None:
    findings = diagnose(vendor(outcome).readings(), {})
    assert found(findings) == [cause]
    assert of(findings, cause).details["failed_calls"] == 1200


def test_a_refused_key_at_a_host_that_answers_nobody_is_not_confirmed() -> None:
    service = vendor("auth")
    service.hosts = [probe(PAY, answered=False, http_status=None), probe(FILM)]
    assert of(diagnose(service.readings(), {}), "E07").tier != "confirmed"


@pytest.mark.parametrize(("code", "meaning"), [(10, "expired"), (62, "another host"), (20, "unknown issuer")])
def test_a_certificate_is_told_from_an_outage(code: int, meaning: str) -> None:
    service = expired_certificate()
    service.hosts[0]["verify_code"] = code
    findings = diagnose(service.readings(), {})
    assert found(findings) == ["E13"]
    assert meaning in of(findings, "E13").details["meaning"]
    assert of(findings, "E06").tier == "excluded" or of(findings, "E06").consequence_of == "E13"


def test_a_certificate_of_a_host_that_fails_nobody_is_no_cause() -> None:
    service = failing()
    service.hosts = [probe(PAY, tls="failed", verify_code=10, answered=False)]
    assert found(diagnose(service.readings(), {})) == []


def test_a_log_that_names_no_upstream_leaves_vendors_open_and_never_clears_them() -> None:
    service = failing()
    service.missing = frozenset({"upstream"})
    service.instead = [reading("upstreams", [])]
    findings = diagnose(service.readings(), {})
    assert findings.outcome == "undetermined"
    assert of(findings, "E06").tier == "undetermined"


# -- databases, Redis, hosts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pattern", "cause"), [
    ("P2024", "E03"), ("pool timeout", "E03"), ("53300", "E03"), ("57P03", "E04"), ("53100", "E04"), ("28P01", "E04"),
    ("25006", "E04"), ("P1001", "E04"), ("42P01", "E05"), ("42703", "E05"), ("Redis MISCONF", "E14"), ("ENOSPC", "E15"),
    ("OOM", "E15"),
])  # fmt: skip
def test_what_the_log_says_makes_the_cause(pattern: str, cause: str) -> None:
    service = failing()
    service.log = [(pattern, 350)]
    assert found(diagnose(service.readings(), {})) == [cause]


def test_error_lines_that_stand_for_few_of_the_failures_are_no_cause() -> None:
    service = failing()
    service.log = [("53300", 5), ("57P03", 5), ("42703", 5), ("Redis TIMEOUT", 5), ("ENOSPC", 5)]
    findings = diagnose(service.readings(), {})
    assert found(findings) == []


def test_pool_time_outs_before_a_quiet_postgresql_are_the_applications_own_pool() -> None:
    service = failing()
    service.log = [("P2024", 350)]
    service.server.add(5)
    findings = diagnose(service.readings(), {})
    assert of(findings, "E03").details["refers_to"] == "P11"
    assert of(findings, "E03").tier == "confirmed"


def test_a_database_that_refuses_its_port_is_down_and_its_pool_time_outs_follow() -> None:
    service = failing()
    service.log = [("PostgreSQL connection refused", 300), ("P2024", 100)]
    service.instead = [
        reading(n, None, source="postgresql", state="unreachable", code="ECONNREFUSED", reason="connection refused")
        for n in ("connection", "headroom", "sessions", "blockers", "limits", "activity", "database_state")
    ]
    findings = diagnose(service.readings(), {})
    assert found(findings) == ["E04"]
    assert findings.verdict[0].tier == "confirmed"


def test_a_database_that_is_silent_to_us_alone_is_unknown_not_down() -> None:
    service = failing()
    service.instead = [reading("connection", None, source="postgresql", state="timeout", reason="no answer within 5 s")]
    findings = diagnose(service.readings(), {})
    assert found(findings) == []
    assert of(findings, "E04").tier == "undetermined"


def test_a_full_database_without_an_application_log_is_found_from_its_own_refusal() -> None:
    service = full_database()
    service.log = []
    service.instead = [reading("app_errors", None, source="shell", state="not_configured", reason="not set")]
    assert found(diagnose(service.readings(), {})) == ["E03"]


def test_a_surge_that_uses_up_the_pools_is_the_cause_of_their_time_outs() -> None:
    service = surge()
    service.log = [("P2024", 400)]
    findings = diagnose(service.readings(), {})
    assert found(findings) == ["E09"]
    assert of(findings, "E03").consequence_of == "E09"


def test_a_leak_beside_a_surge_stays_a_finding_of_its_own() -> None:
    service = surge()
    service.server, service.log = full_database().server, [("53300", 400)]
    assert set(found(diagnose(service.readings(), {}))) == {"E09", "E03"}


@pytest.mark.parametrize(("answer", "refers"), [("MISCONF Redis is configured to save", "K08"), ("LOADING", "K10"),
                                                ("NOAUTH Authentication required.", "K03")])  # fmt: skip
def test_redis_refers_to_the_cause_of_its_own_runbook(answer: str, refers: str) -> None:
    service = failing()
    service.log, service.redis = [("Redis TIMEOUT", 350)], {"answer": answer}
    assert of(diagnose(service.readings(), {}), "E14").details["refers_to"] == refers


# -- who and where ----------------------------------------------------------------------------------------------------


def test_a_surge_needs_many_clients_and_more_than_before() -> None:
    service = surge()
    service.baseline_rate = 8.0
    assert "E09" not in found(diagnose(service.readings(), {}))


def test_one_address_in_all_is_a_proxy_and_no_abuser() -> None:
    service = failing()
    for lot in service.lots:
        lot.client, lot.user = "10.0.0.1", None
    assert "E10" not in found(diagnose(service.readings(), {}))


def test_a_gateway_that_always_sends_most_is_no_abuser() -> None:
    service = Service()
    for name in ("a1", "a2", "a3", "a4"):
        service.add(500, 75, instance=name, client="10.0.0.1", user=None)
        service.add(300, 45, instance=name)
    assert "E10" not in found(diagnose(service.readings(), {}))


def test_a_tenant_whose_requests_alone_fail_is_named() -> None:
    service = ordinary()
    for name in ("a1", "a2", "a3", "a4"):
        service.add(150, 140, instance=name, user="acct-31", client="10.9.0.3")
    findings = diagnose(service.readings(), {})
    assert found(findings) == ["E10"]
    assert "acct-31" in of(findings, "E10").details.values()


def test_the_route_that_is_simply_the_busiest_is_no_bad_record() -> None:
    service = failing()
    service.issues = [issue(4, is_new=True, first_release=OLD, users=3)]
    service.deployments = [deployment(3000, "a" * 40, OLD)]
    assert "E18" not in found(diagnose(service.readings(), {}))


@pytest.mark.parametrize("outcome", ["error", "auth", "throttled"])
def test_the_new_issue_that_a_vendor_brings_about_is_no_bad_record(outcome: str) -> None:
    service = vendor(outcome)
    service.deployments = [deployment(3000, "a" * 40, OLD)]
    service.issues = [issue(4, is_new=True, first_release=OLD, users=3, count=900)]
    findings = diagnose(service.readings(), {})
    assert "E18" not in found(findings)
    assert of(findings, "E18").tier != "confirmed"


def test_a_single_instance_is_no_bad_instance() -> None:
    service = Service().add(2000, 400, instance="only")
    findings = diagnose(service.readings(), {})
    assert of(findings, "E12").tier == "excluded"


def test_an_instance_that_gets_most_of_the_traffic_has_most_of_the_errors() -> None:
    service = Service().add(2700, 405, instance="big")
    service.add(300, 45, instance="small")
    assert "E12" not in found(diagnose(service.readings(), {}))


def test_a_bad_backend_is_found_from_a_proxy_that_names_backends_only() -> None:
    service = Service(missing=frozenset({"instance", "release"}))
    for host, errors, outcome in (("10.0.0.1:80", 0, ""), ("10.0.0.2:80", 700, "refused"), ("10.0.0.3:80", 0, "")):
        service.add(800, errors, upstream=host, outcome=outcome, known_host=False, status=502, instance=None)
    findings = diagnose(service.readings(), {})
    assert found(findings) == ["E12"]
    assert of(findings, "E12").details["instance"] == "10.0.0.2:80"


def test_the_last_instance_that_serves_is_not_drained_unseen() -> None:
    findings = diagnose(bad_instance().readings(), {})
    assert findings.actions[0].kind == "edge.drain"
    assert findings.actions[0].preconditions[0].holds is True


def test_a_gateway_status_that_the_application_gave_is_no_fault_of_the_edge() -> None:
    service = failing(status=502)
    assert "E11" not in found(diagnose(service.readings(), {}))


def test_clients_that_hang_up_while_requests_fail_too_are_no_artefact() -> None:
    service = failing()
    service.closed_by_client = service.requests // 3
    assert of(diagnose(service.readings(), {}), "E16").tier == "excluded"


# -- properties -------------------------------------------------------------------------------------------------------


ALL = SERVICES | {"healthy": ordinary, "unexplained": failing, "replaced": replaced_release}


@pytest.mark.parametrize("name", ALL)
def test_the_same_readings_give_the_same_bytes_whatever_the_order_of_rows(name: str) -> None:
    once = json.dumps(diagnose(ALL[name]().readings(), {}).as_dict())
    shuffled = ALL[name]().readings()
    for row in shuffled:
        if row.name in ("splits", "upstreams", "deployments", "sentry_issues", "app_errors", "request_curve"):
            random.Random(7).shuffle(row.value)
    assert json.dumps(diagnose(shuffled, {}).as_dict()) == once


@pytest.mark.parametrize("name", SERVICES)
def test_other_names_give_the_same_causes(name: str) -> None:
    text = json.dumps([r.as_dict() for r in SERVICES[name]().readings()])
    for old, new in ((PAY, "rest.bank.test.example"), (FILM, "v2.cinema.example"), ("a1", "pod-xk2"), ("a3", "pod-9zz"),
                     ("10.9.0.", "2001:db8::"), (OLD, "3.0.1"), (NEW, "3.1.0"), ("u7", "kunde-")):  # fmt: skip
        text = text.replace(old, new)
    renamed = [Reading(**r) for r in json.loads(text)]
    assert found(diagnose(renamed, {})) == [name]


@pytest.mark.parametrize("times", [0.5, 3, 20])
@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"E09", "E10"}))
def test_other_sizes_give_the_same_causes(name: str, times: float) -> None:
    service = SERVICES[name]()
    for lot in service.lots:
        lot.requests, lot.errors = round(lot.requests * times), round(lot.errors * times)
    service.log = [(pattern, round(lines * times)) for pattern, lines in service.log]
    service.closed_by_client = round(service.closed_by_client * times)
    assert found(diagnose(service.readings(), {})) == [name]


NAMES = sorted({r.name for make in ALL.values() for r in make().readings()})


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted(ALL)),
    lost=st.sets(st.sampled_from(NAMES), min_size=1),
    state=st.sampled_from(FAILED),
)
@example(name="E09", lost={"upstreams"}, state="timeout")
@example(name="E03", lost={"app_errors"}, state="unreachable")
def test_a_failed_reading_never_raises_a_cause(name: str, lost: set[str], state: str) -> None:
    complete = ALL[name]().readings()
    cut: list[Reading] = [
        replace(r, state=state, reason="…", value=None, code="") if r.name in lost else r  # type: ignore[arg-type]
        for r in complete
    ]
    before = {v.cause: v.tier for v in diagnose(complete, {}).verdict}
    for verdict in diagnose(cut, {}).verdict:
        if verdict.tier in ("confirmed", "probable"):
            assert TIERS.index(verdict.tier) >= TIERS.index(before[verdict.cause]), verdict
            assert before[verdict.cause] in ("confirmed", "probable"), verdict


@pytest.mark.parametrize("state", FAILED)
def test_traffic_that_cannot_be_read_is_never_healthy(state: str) -> None:
    failed = [replace(r, state=state, reason="…", value=None) for r in ordinary().readings()]  # type: ignore[arg-type]
    findings = diagnose(failed, {})
    assert findings.outcome == "undetermined"
    assert all(v.tier in ("undetermined", "excluded") for v in findings.verdict)
    assert {n.state for n in findings.not_checked} == {state}


def test_shares_are_of_the_requests_that_the_splits_were_taken_with() -> None:
    service = bad_instance()
    service.samples = 1
    later = reading("requests", service.readings()[0].value | {"requests": 9000, "errors": 3000})
    readings = [*service.readings(), replace(later, measured_at="2026-03-01T03:00:04+00:00")]
    findings = diagnose(readings, {})
    assert findings.symptom.value == 33.33
    assert of(findings, "E12").share > 0.95

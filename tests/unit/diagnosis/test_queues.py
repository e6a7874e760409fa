"""The rules of the queue runbook on queues described in a few words: what each cause needs, and what it must not be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runbook.diagnosis.queues import depth, diagnose, finding, prevention
from runbook.diagnosis.readings import Readings
from runbook.result import TIERS, Action, Findings, Reading, Verdict
from tests.unit.diagnosis.queue import Queue, ago
from tests.unit.diagnosis.server import reading

REASON = "TypeError: codec is undefined"
GONE = {"has_hash": False, "job": None, "added_at": None, "waited_seconds": None}
"""What is read of a job whose hash was evicted."""


def run(queue: Queue, **parameters: Any) -> Findings:
    return diagnose(queue.readings(), parameters)


def found(findings: Findings) -> dict[str, str]:
    """Causes found by their tier, consequences apart."""
    return {
        v.cause: v.tier for v in findings.verdict if v.tier in ("confirmed", "probable") and v.role != "consequence"
    }


def verdict(findings: Findings, cause: str) -> Verdict:
    return next(v for v in findings.verdict if v.cause == cause)


def evidence(findings: Findings, id: str) -> Any:
    return next(e for e in findings.evidence if e.id == id)


def action(findings: Findings, kind: str) -> Action | None:
    return next((a for a in findings.actions if a.kind == kind), None)


# -- queues ------------------------------------------------------------------------------------------------------------


def healthy() -> Queue:
    queue = Queue()
    queue.done(40, apart=60)
    queue.done(30, last=4000, apart=60, before=True)
    queue.work(1)
    return queue


def moving(queue: Queue) -> Queue:
    """Jobs end while we look."""
    queue.then |= {"completed": len(queue.completed) + len(queue.before) + 3}
    return queue


def no_worker() -> Queue:
    queue = Queue(clients=[])
    queue.wait(24, 700, spread=300)
    return queue


def paused(major: int = 6) -> Queue:
    queue = Queue(state={"paused": True, "major": major, "version": f"bullmq:{major}.1.0"})
    queue.wait(40, 700, spread=300, place="wait" if major == 6 else "paused")
    return queue


def under_capacity() -> Queue:
    queue = Queue()
    queue.done(30, last=4000, apart=20, ran=4, before=True)
    queue.done(10, last=5, apart=25, ran=4, waited=600)
    queue.wait(100, 900, spread=890)
    queue.work(2, 3)
    return moving(queue)


def hung() -> Queue:
    queue = Queue()
    queue.work(2, 2400)
    queue.wait(6, 2000)
    return queue


def blocked() -> Queue:
    queue = Queue(clients=[{"id": 7, "age_seconds": 9000, "idle_seconds": 60}])
    queue.work(1, 70, lock=False)
    queue.wait(6, 700)
    return queue


def dead() -> Queue:
    queue = Queue(clients=[])
    queue.work(2, 70, lock=False)
    queue.wait(6, 700)
    return queue


def poison() -> Queue:
    queue = healthy()
    queue.fail(1, "job stalled more than allowable limit")
    return queue


def failing() -> Queue:
    queue = Queue()
    queue.done(10, apart=100)
    queue.fail(14, REASON)
    queue.retry_later(8, REASON)
    return queue


def capped() -> Queue:
    queue = Queue(state={"concurrency": 1})
    queue.done(10, last=5, apart=25, waited=600)
    queue.wait(60, 900, spread=880)
    queue.work(1, 3)
    return moving(queue)


def rate_limited() -> Queue:
    queue = Queue(state={"limiter_ms": 45_000})
    queue.wait(60, 900, spread=300)
    return queue


def scheduled() -> Queue:
    queue = healthy()
    queue.schedule(12)
    return queue


def starved() -> Queue:
    queue = Queue()
    queue.done(40, last=2, apart=10, waited=3)
    queue.wait(20, 1300, spread=100, place="prioritized", priority=10)
    queue.wait(3, 4, spread=3)
    queue.work(2, 3)
    return moving(queue)


def burst() -> Queue:
    queue = Queue()
    queue.done(30, last=4000, apart=60, before=True)
    queue.done(10, last=5, apart=25, waited=400)
    queue.wait(80, 500, spread=60)
    queue.work(2, 3)
    return moving(queue)


def slow_downstream() -> Queue:
    queue = Queue(calls={"mux_assets": 2300, "storage_clock": 30})
    queue.done(30, last=4000, apart=20, ran=1, before=True)
    queue.done(12, last=5, apart=20, ran=9, waited=500)
    queue.wait(60, 700, spread=600)
    queue.work(2, 8)
    return moving(queue)


def redis_refuses(code: str = "MISCONF") -> Queue:
    queue = no_worker()
    refused = {"state": "partial", "code": code, "reason": f"{code} it says"}
    for name in ("redis_ping", "queue_failed", "queue_completed", "queue_waiting", "queue_active", "queue_state"):
        queue.instead[name] = reading(name, None, source="redis", **refused)
    return queue


def redis_full() -> Queue:
    queue = Queue(info={"maxmemory": 1000, "used_memory": 2000})
    queue.wait(24, 700)
    return queue


def evicted(left: int = 8) -> Queue:
    queue = Queue(info={"maxmemory_policy": "allkeys-lru", "evicted_keys": 40})
    queue.wait(20, 700, **GONE)
    queue.wait(left, 700)
    queue.work(1, 5)
    return queue


def no_room() -> Queue:
    queue = Queue()
    queue.fail(24, "ENOSPC: no space left on device, write")
    return queue


def zombie() -> Queue:
    queue = no_worker()
    queue.processes = [{"host": "local", "pid": 4711, "state": "S"}]
    return queue


def mixed() -> Queue:
    queue = Queue()
    queue.wait(24, 700, place="paused")
    return queue


def orphans() -> Queue:
    queue = healthy()
    queue.parents = [
        {"id": f"p{n}", "job": "album", "waited_seconds": 900.0, "children_left": 1, "failed_child": "bull:media:9",
         "child_reason": "no such picture", "children_seen": 1}
        for n in range(3)
    ]  # fmt: skip
    return queue


CASES: dict[str, Callable[[], Queue]] = {
    "Q01": no_worker, "Q02": paused, "Q03": under_capacity, "Q04": hung, "Q05": blocked, "Q06": dead, "Q07": poison,
    "Q08": failing, "Q09": capped, "Q11": starved, "Q12": burst, "Q13": slow_downstream, "Q14": redis_refuses,
    "Q15": evicted, "Q17": no_room, "Q18": zombie, "Q19": mixed, "Q20": orphans,
}  # fmt: skip


@pytest.mark.parametrize("cause", CASES)
def test_each_cause_is_found_alone_and_confirmed(cause: str) -> None:
    findings = run(CASES[cause]())
    assert found(findings) == {cause: "confirmed"}
    assert findings.outcome == "diagnosed"
    assert findings.verdict[0].cause == cause


@pytest.mark.parametrize(
    ("make", "cause"),
    [(lambda: paused(5), "Q02"), (rate_limited, "Q09"), (redis_full, "Q14"), (lambda: evicted(0), "Q15"),
     (lambda: redis_refuses("ECONNREFUSED"), "Q14")],
)  # fmt: skip
def test_other_forms_of_a_cause_are_found_too(make: Callable[[], Queue], cause: str) -> None:
    assert found(run(make())) == {cause: "confirmed"}


@pytest.mark.parametrize("make", [healthy, scheduled, Queue], ids=lambda f: f.__name__)
def test_a_queue_that_keeps_up_is_healthy(make: Callable[[], Queue]) -> None:
    findings = run(make())
    assert (findings.outcome, found(findings)) == ("healthy", {"Q10": "confirmed"})


def test_what_is_scheduled_for_later_is_told_by_its_number() -> None:
    assert "12 jobs are scheduled" in verdict(run(scheduled()), "Q10").name


def test_jobs_without_their_hash_are_a_symptom_though_nobody_knows_how_long_they_wait() -> None:
    findings = run(evicted(0))
    assert (findings.symptom.label, findings.symptom.value) == ("jobs to be run whose hash is gone", 20)
    assert (findings.symptom.breached, findings.outcome) == (True, "diagnosed")


def test_what_was_measured_is_named_before_what_somebody_wrote_into_the_log() -> None:
    """The application calls others than its jobs do, and logs into the same file."""
    queue = slow_downstream()
    queue.log = [{"log": "/srv/app.log", "pattern": "timeout", "count": 9, "sample": "StripeError: ETIMEDOUT"}]
    details = verdict(run(queue), "Q13").details
    assert (details["dependency"], details["also"]) == ("Mux", ["Stripe"])


def test_a_name_out_of_the_log_alone_is_not_sure() -> None:
    queue = slow_downstream()
    queue.calls = {}
    queue.log = [{"log": "/srv/app.log", "pattern": "timeout", "count": 9, "sample": "StripeError: ETIMEDOUT"}]
    assert found(run(queue)) == {"Q13": "probable"}


# -- what must not be said ---------------------------------------------------------------------------------------------


def test_a_paused_queue_with_a_worker_is_neither_without_worker_nor_too_slow() -> None:
    """Drill S25."""
    findings = run(paused())
    tiers = {v.cause: v.tier for v in findings.verdict}
    assert (tiers["Q01"], tiers["Q03"]) == ("excluded", "excluded")
    assert (verdict(findings, "Q02").details["waiting"], verdict(findings, "Q02").details["workers"]) == (40, 1)


def test_a_paused_queue_without_a_worker_is_both() -> None:
    queue = paused()
    queue.clients = []
    assert set(found(run(queue))) == {"Q01", "Q02"}


def test_jobs_that_were_only_just_added_to_a_paused_queue_are_told_all_the_same() -> None:
    queue = Queue(state={"paused": True})
    queue.wait(40, 3)
    findings = run(queue)
    assert findings.symptom.breached is False
    assert found(findings) == {"Q02": "confirmed"}


def test_a_pause_with_nothing_that_waits_is_no_finding() -> None:
    queue = healthy()
    queue.state = {"paused": True}
    assert "Q02" not in found(run(queue))


def test_hidden_names_are_not_an_absent_worker() -> None:
    queue = no_worker()
    queue.state = {"workers": None}
    findings = run(queue)
    assert (verdict(findings, "Q01").tier, findings.outcome) == ("undetermined", "undetermined")
    assert "hidden" in evidence(findings, "Q01.absent").reason


def test_nobody_named_while_jobs_end_is_a_worker_without_a_name() -> None:
    queue = moving(no_worker())
    assert verdict(run(queue), "Q01").tier == "excluded"


def test_a_queue_that_keeps_no_finished_job_is_not_taken_for_one_that_stands() -> None:
    """``removeOnComplete``: nothing is counted, and yet another job is next."""
    queue = no_worker()
    queue.then = {"next_id": "another"}
    assert evidence(run(queue), "Q01.stands").reading == "unknown"


def test_a_queue_that_keeps_a_fixed_number_of_finished_jobs_is_seen_to_move() -> None:
    queue = no_worker()
    queue.state = {"completed": 1000, "last_completed_at": ago(20)}
    queue.then = {"last_completed_at": ago(0)}
    assert verdict(run(queue), "Q01").tier == "excluded"


def test_one_look_does_not_confirm_that_nothing_moves() -> None:
    queue = no_worker()
    queue.looks = 1
    assert verdict(run(queue), "Q01").tier == "probable"


def test_a_job_that_usually_takes_long_does_not_hang() -> None:
    queue = Queue()
    queue.done(30, last=4000, apart=60, ran=1500, before=True)
    queue.work(2, 1800)
    assert verdict(run(queue), "Q04").tier == "excluded"


def test_a_job_that_runs_long_while_others_end_explains_itself_and_not_the_wait() -> None:
    queue = under_capacity()
    queue.work(1, 2400)
    assert verdict(run(queue), "Q04").tier not in ("confirmed", "probable")


def test_a_lock_that_was_there_a_moment_ago_is_no_blocked_worker() -> None:
    queue = blocked()
    readings = queue.readings()
    first = next(n for n, r in enumerate(readings) if r.name == "queue_active")
    readings[first] = replace(readings[first], value=[r | {"has_lock": True} for r in queue.active])
    assert verdict(diagnose(readings, {}), "Q05").tier == "excluded"


def test_connected_workers_that_speak_are_not_blocked_another_one_died() -> None:
    queue = blocked()
    queue.clients = [{"id": 7, "age_seconds": 9000, "idle_seconds": 4}]
    queue.then = {"worker_clients": [{"id": 7, "age_seconds": 9004, "idle_seconds": 1}]}
    tiers = {v.cause: v.tier for v in run(queue).verdict}
    assert tiers["Q05"] == "excluded"
    assert tiers["Q06"] in ("possible", "probable")


def test_a_connected_worker_that_may_or_may_not_speak_is_unknown() -> None:
    queue = blocked()
    queue.clients = [{"id": 7, "age_seconds": 9000, "idle_seconds": 4}]
    findings = run(queue)
    assert (verdict(findings, "Q05").tier, findings.outcome) == ("undetermined", "undetermined")


def test_a_dead_worker_explains_that_none_is_there() -> None:
    entry = verdict(run(dead()), "Q01")
    assert (entry.role, entry.consequence_of) == ("consequence", "Q06")


def test_a_worker_that_died_a_moment_ago_left_its_locks_behind() -> None:
    queue = Queue(clients=[])
    queue.work(2, 8)
    findings = run(queue)
    assert found(findings) == {"Q06": "confirmed"}
    assert findings.symptom.breached is True


def test_jobs_of_a_worker_whose_process_lives_are_a_zombies() -> None:
    queue = zombie()
    queue.work(2, 70, lock=False)
    assert found(run(queue)) == {"Q18": "confirmed"}


def test_a_worker_that_dies_over_every_job_is_no_one_jobs_doing() -> None:
    queue = Queue()
    queue.fail(30, "job stalled more than allowable limit")
    assert verdict(run(queue), "Q07").tier != "confirmed"


def test_failures_of_many_kinds_have_no_common_reason() -> None:
    queue = Queue()
    for n in range(8):
        queue.fail(2, "Error: " + "abcdefgh"[n])
    assert verdict(run(queue), "Q08").tier != "confirmed"


def test_numbers_in_reasons_do_not_keep_them_apart() -> None:
    queue = Queue()
    for n in range(8):
        queue.fail(1, f"Error: row {n} of upload {1000 + n} is odd")
    assert found(run(queue)) == {"Q08": "confirmed"}


def test_a_backlog_of_an_earlier_time_that_drains_is_not_too_little_capacity() -> None:
    queue = Queue()
    queue.done(100, last=1, apart=2, waited=2000)
    queue.wait(40, 2000, spread=100)
    queue.work(2, 2)
    assert verdict(run(moving(queue)), "Q03").tier not in ("confirmed", "probable")


def test_without_a_usual_rate_a_burst_is_unknown() -> None:
    queue = under_capacity()
    queue.before, queue.waiting = [], []
    queue.wait(100, 400, spread=100)
    findings = run(queue)
    assert verdict(findings, "Q12").tier == "undetermined"
    assert "too few finished jobs" in evidence(findings, "Q12.times").reason


def test_many_arrivals_while_nobody_works_are_no_burst() -> None:
    queue = no_worker()
    queue.done(30, last=4000, apart=60, before=True)
    assert verdict(run(queue), "Q12").tier == "excluded"


def test_slower_jobs_without_a_name_for_what_they_wait_for_are_not_confirmed() -> None:
    queue = slow_downstream()
    queue.calls = {"mux_assets": 20}
    assert verdict(run(queue), "Q13").tier not in ("confirmed", "probable")


def test_a_call_is_not_slow_where_everything_takes_us_long() -> None:
    queue = slow_downstream()
    queue.calls = {"mux_assets": 2300, "storage_clock": 1900, "headroom": 1500}
    assert verdict(run(queue), "Q13").tier not in ("confirmed", "probable")
    readings = slow_downstream().readings()
    mux = next(r for r in readings if r.name == "mux_assets")
    again = diagnose([*readings, replace(mux, duration_ms=40)], {})
    assert verdict(again, "Q13").tier not in ("confirmed", "probable"), "only the first call took so long"
    queue = slow_downstream()
    queue.instead["redis_ping"] = replace(reading("redis_ping", {"answer": "PONG"}, source="redis"), duration_ms=700)
    assert verdict(run(queue), "Q13").tier not in ("confirmed", "probable")


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("Error: ETIMEDOUT api.mux.com did not answer within 3000 ms", "Mux"),
        ("PrismaClientKnownRequestError: P2024 Timed out fetching a new connection", "database"),
        ("TimeoutError: s3 GetObject timed out", "object storage"),
        ("Error: connect ETIMEDOUT billing.example.com:443", "billing.example.com"),
    ],
)
def test_jobs_that_time_out_name_what_they_wait_for(reason: str, name: str) -> None:
    queue = Queue()
    queue.fail(12, reason, ran=30)
    details = verdict(run(queue), "Q13").details
    assert details["dependency"] == name
    assert found(run(queue)) == {"Q13": "confirmed"}


def test_the_queues_reasons_name_a_dependency_that_fails_fast_and_it_is_not_slow() -> None:
    queue = Queue()
    queue.fail(12, "Error: Mux API answered 503", ran=0.1)
    findings = run(queue)
    assert found(findings) == {"Q08": "confirmed"}
    assert verdict(findings, "Q08").details["dependency"] == "Mux"


@pytest.mark.parametrize(("state", "code"), [("auth_failed", "WRONGPASS"), ("timeout", "ETIMEDOUT")])
def test_a_redis_that_refuses_us_alone_or_is_silent_is_unknown(state: str, code: str) -> None:
    queue = redis_refuses()
    for name in list(queue.instead):
        queue.instead[name] = reading(name, None, source="redis", state=state, code=code, reason="…")
    findings = run(queue)
    assert (found(findings), findings.outcome) == ({}, "undetermined")


def test_a_full_disk_explains_the_redis_that_refuses_and_that_the_queue() -> None:
    queue = redis_refuses("MISCONF")
    queue.disks = [{"host": "local", "mount": "/var/lib/redis", "used_percent": 100, "inodes_percent": 3}]
    findings = run(queue)
    assert findings.verdict[0].cause == "Q17"
    assert verdict(findings, "Q17").details["mount"] == "/var/lib/redis"
    assert verdict(findings, "Q14").consequence_of == "Q17"
    assert verdict(findings, "Q14").details["refers_to"] == "K08"


def test_a_full_disk_that_nobody_met_is_no_finding() -> None:
    queue = under_capacity()
    queue.disks = [{"host": "local", "mount": "/backup", "used_percent": 100, "inodes_percent": 3}]
    assert "Q17" not in found(run(queue))


def test_a_field_that_may_not_be_read_is_no_evicted_job() -> None:
    queue = evicted()
    for row in queue.waiting:
        row["has_hash"] = None
    assert verdict(run(queue), "Q15").tier == "excluded"


def test_jobs_without_a_hash_where_nothing_was_evicted_are_not_confirmed() -> None:
    queue = evicted()
    queue.info = {}
    assert verdict(run(queue), "Q15").tier != "confirmed"


def test_a_queue_that_is_not_there_is_unknown_and_names_those_that_are() -> None:
    queue = Queue(state={"exists": False, "waiting": None, "workers": None, "other_queues": ["video"]})
    findings = run(queue)
    assert (findings.outcome, found(findings)) == ("undetermined", {})
    entry = verdict(findings, "Q16")
    assert (entry.tier, entry.details["queues_there"]) == ("undetermined", ["video"])
    assert "video" in evidence(findings, "Q16.exists").reason


def test_parents_whose_children_still_run_are_nobodys_orphans() -> None:
    queue = orphans()
    for row in queue.parents:
        row |= {"failed_child": None, "child_reason": None}
    assert found(run(queue)) == {"Q10": "confirmed"}


def test_a_symptom_that_is_gone_with_a_peak_in_the_window_is_no_current_fault() -> None:
    queue = healthy()
    queue.done(20, last=1200, apart=5, waited=900)
    findings = run(queue)
    assert findings.outcome == "no_current_fault"
    assert findings.symptom.breached is False


def test_waits_that_ended_late_are_a_symptom_when_nothing_waits_any_more() -> None:
    queue = healthy()
    queue.done(40, last=2, apart=3, waited=900)
    assert run(queue).symptom.label.startswith("95th percentile")
    assert run(queue).symptom.breached is True


def test_two_causes_at_once_are_both_named() -> None:
    queue = failing()
    queue.state = {"paused": True}
    queue.wait(20, 700)
    assert set(found(run(queue))) == {"Q02", "Q08"}


# -- actions -----------------------------------------------------------------------------------------------------------


def test_a_resume_asks_who_paused_it_since_nobody_knows() -> None:
    resume = action(run(paused()), "queue.resume")
    assert resume is not None
    assert [p.holds for p in resume.preconditions] == [None, True]
    assert resume.undo == "await queue.pause()"
    assert (resume.targets[0]["queue"], resume.targets[0]["prefix"]) == ("media", "bull")


def test_what_is_restarted_is_a_process_by_its_start_the_stopped_one_first() -> None:
    queue = hung()
    queue.processes = [
        {"host": "local", "pid": 7, "state": "Sl", "age_seconds": 900, "command": "node worker.js"},
        {"host": "w2", "pid": 8, "state": "Tl", "age_seconds": 60, "command": "node worker.js"},
        {"host": "w2", "pid": 9, "state": "Z", "age_seconds": 60, "command": "node worker.js"},
    ]
    restart = action(run(queue), "worker.restart")
    assert restart is not None
    found_there = [(t["host"], t["pid"], datetime.fromisoformat(t["started_at"])) for t in restart.targets]
    assert found_there == [("w2", 8, datetime.fromisoformat(ago(60))), ("local", 7, datetime.fromisoformat(ago(900)))]
    assert restart.targets[0]["job_ids"] == [row["id"] for row in queue.active]


def test_retries_are_of_one_reason_the_oldest_first_and_fifty_at_most() -> None:
    queue = Queue()
    queue.fail(3, "Error: another")
    ids = queue.fail(70, REASON)
    retry = action(run(queue), "queue.retry")
    assert retry is not None
    assert len(retry.targets) == 50
    assert retry.targets[0]["id"] == ids[-1]
    assert {t["reason"] for t in retry.targets} == {REASON}


def test_nothing_that_writes_is_offered_as_safe_while_the_version_is_unknown() -> None:
    queue = failing()
    queue.state = {"major": None, "version": None}
    assert action(run(queue), "queue.retry") is None
    queue = paused()
    queue.state |= {"major": None, "version": None}
    resume = action(run(queue), "queue.resume")
    assert resume is not None
    assert resume.preconditions[1].holds is False


def test_a_poisoned_job_is_never_retried() -> None:
    assert {a.kind for a in run(poison()).actions} == {"queue.quarantine"}


@pytest.mark.parametrize("cause", CASES)
def test_no_action_moves_stalled_jobs_deletes_or_obliterates(cause: str) -> None:
    for one in run(CASES[cause]()).actions:
        said = f"{one.kind} {one.by_hand}".lower()
        for never in ("obliterate", "flush", " del ", "zrem", "lrem", "rpush", "lpush", "kill -9", "drain()", "keys "):
            assert never not in said, (one.id, never)
        assert one.undo


def test_a_hostile_name_of_a_queue_stays_a_string_in_what_is_copied() -> None:
    queue = paused()
    queue.state |= {"queue": "x'); process.exit(); ('", "prefix": 'a"b'}
    resume = action(run(queue), "queue.resume")
    assert resume is not None
    assert json.dumps("x'); process.exit(); ('") in resume.by_hand
    assert json.dumps('a"b') in resume.by_hand


# -- for others --------------------------------------------------------------------------------------------------------


def test_other_rooms_are_told_the_leading_finding_and_nothing_on_a_healthy_queue() -> None:
    leading = finding(Readings(paused().readings()))
    assert leading is not None
    assert leading.cause == "Q02"
    assert finding(Readings(healthy().readings())) is None
    assert finding(Readings([])) is None


def test_nothing_read_is_undetermined_and_names_no_cause() -> None:
    findings = diagnose([], {})
    assert findings.outcome == "undetermined"
    assert {v.tier for v in findings.verdict} <= {"undetermined", "excluded"}


def test_guards_that_could_not_be_read_are_unknown() -> None:
    assert {row["holds"] for row in prevention([])} == {None}


def test_guards_are_checked() -> None:
    rows = {row["check"]: row["holds"] for row in prevention(evicted().readings())}
    assert rows["Redis never evicts (noeviction)"] is False
    assert rows["more than one worker"] is False


# -- what is not seen --------------------------------------------------------------------------------------------------

READ = sorted({r.name for r in Queue(calls={"mux_assets": 1.0}).readings()})
STATES = ("unreachable", "timeout", "permission_denied", "auth_failed", "rate_limited", "not_configured")


def lost(readings: list[Reading], names: set[str], state: str) -> list[Reading]:
    return [
        replace(r, value=None, state=state, reason="taken away") if r.name in names else r  # type: ignore[arg-type]
        for r in readings
    ]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cause=st.sampled_from([*CASES, "Q10"]),
    names=st.sets(st.sampled_from(READ), min_size=1),
    state=st.sampled_from(STATES),
)
@example(cause="Q01", names={"queue_active"}, state="timeout")
@example(cause="Q18", names={"worker_processes"}, state="timeout")
@example(cause="Q02", names={"queue_state"}, state="unreachable")
@example(cause="Q17", names={"queue_flow", "disk"}, state="unreachable")
def test_a_reading_that_is_lost_never_raises_a_cause(cause: str, names: set[str], state: str) -> None:
    queue = healthy() if cause == "Q10" else CASES[cause]()
    whole = diagnose(queue.readings(), {})
    part = diagnose(lost(queue.readings(), names, state), {})
    before = {v.cause for v in whole.verdict if v.tier in ("confirmed", "probable")}
    after = {v.cause for v in part.verdict if v.tier in ("confirmed", "probable")}
    raised = after - before
    # A zombie whose process is not seen looks like no worker at all, which is true of the queue.
    assert raised <= ({"Q01"} if cause == "Q18" and "worker_processes" in names else set())
    if part.outcome == "healthy":
        assert whole.outcome == "healthy"
    confirmed = {v.cause for v in whole.verdict if v.tier == "confirmed"}
    assert {v.cause for v in part.verdict if v.tier == "confirmed"} <= confirmed | (
        {"Q01"} if cause == "Q18" else set()
    )


def test_the_same_readings_give_the_same_findings() -> None:
    readings = failing().readings()
    assert json.dumps(diagnose(readings, {}).as_dict()) == json.dumps(diagnose(readings, {}).as_dict())
    assert TIERS


# -- by time -----------------------------------------------------------------------------------------------------------


def test_the_queue_by_time_tells_back_how_long_the_oldest_waited() -> None:
    drawn = depth(no_worker().readings(), {"window_minutes": 60})
    assert drawn is not None
    assert len(drawn.steps) == 60
    assert drawn.steps[-1].waiting == 24
    assert drawn.steps[-1].oldest_seconds == pytest.approx(700)
    assert drawn.steps[-6].oldest_seconds == pytest.approx(400)
    assert drawn.steps[0].waiting == 0
    assert sum(step.arrived or 0 for step in drawn.steps) == 24
    assert drawn.states == {"waiting": 24}


def test_steps_before_what_is_known_are_blank() -> None:
    queue = under_capacity()
    queue.instead["queue_waiting"] = replace(
        next(r for r in queue.readings() if r.name == "queue_waiting"), state="partial", reason="only 100 of 900"
    )
    drawn = depth(queue.readings(), {"window_minutes": 60})
    assert drawn is not None
    assert drawn.steps[0].arrived is None
    assert drawn.steps[-1].arrived is not None


def test_a_queue_that_could_not_be_read_is_not_drawn() -> None:
    assert depth(redis_refuses().readings(), {}) is None


@pytest.mark.parametrize(
    ("reason", "cause"),
    [(REASON, "Q08"), ("job stalled more than allowable limit", "Q07"), ("ENOSPC: no space left on device", "Q17")],
)
def test_what_failed_an_hour_ago_explains_nothing_that_waits_now(reason: str, cause: str) -> None:
    queue = no_worker()
    queue.done(60, last=60, apart=50)
    queue.fail(6 if cause != "Q07" else 1, reason, last=3000)
    findings = run(queue)
    assert found(findings) == {"Q01": "confirmed"}
    assert verdict(findings, cause).tier in ("possible", "excluded")


# -- how long jobs take against how long we look -----------------------------------------------------------------------


def test_jobs_that_take_longer_than_we_look_are_worked_on_all_the_same() -> None:
    queue = under_capacity()
    queue.then = {}
    assert found(run(queue)) == {"Q03": "confirmed"}


def test_jobs_that_ended_lately_do_not_hide_that_nobody_is_there_any_more() -> None:
    queue = under_capacity()
    queue.then, queue.clients, queue.active = {}, [], []
    assert found(run(queue)) == {"Q01": "confirmed"}


def test_jobs_that_ended_lately_say_nothing_while_it_is_hidden_who_works() -> None:
    queue = under_capacity()
    queue.then = {}
    queue.state = {"workers": None}
    findings = run(queue)
    assert (found(findings), findings.outcome) == ({}, "undetermined")


def test_one_hung_job_beside_others_that_end_every_minute_is_not_confirmed() -> None:
    queue = under_capacity()
    queue.then = {}
    queue.work(1, 2400)
    assert verdict(run(queue), "Q04").tier not in ("confirmed", "probable")


def unkept(*, active_then: list[str]) -> Findings:
    """A queue that keeps no finished job, with these in work at the last look."""
    queue = under_capacity()
    queue.completed, queue.before = [], []
    queue.state = {"completed": 0, "failed": 0, "last_completed_at": None}
    queue.then = {"next_id": "another", "waiting": 104}
    readings = queue.readings()
    last = max(n for n, r in enumerate(readings) if r.name == "queue_active")
    readings[last] = replace(readings[last], value=[queue.active[0] | {"id": one} for one in active_then])
    return diagnose(readings, {})


def test_without_finished_jobs_a_backlog_that_does_not_shrink_is_too_few_workers() -> None:
    assert found(unkept(active_then=["901", "902"])) == {"Q03": "confirmed"}


def test_without_finished_jobs_that_another_one_is_next_is_no_proof_that_one_ended() -> None:
    queue = under_capacity()
    assert verdict(unkept(active_then=[row["id"] for row in queue.active]), "Q03").tier == "undetermined"


@pytest.mark.parametrize(("seen", "found_"), [((1, 0, 0), ["Q09"]), ((0, 0, 0), [])])
def test_a_queue_with_a_limit_of_its_own_is_not_called_short_of_workers(
    seen: tuple[int, ...], found_: list[str]
) -> None:
    numbers = iter(seen)
    readings = [
        replace(r, value=[row | {"active": next(numbers)} for row in r.rows]) if r.name == "queue_state" else r
        for r in capped().readings()
    ]
    findings = diagnose(readings, {})
    main = [v.cause for v in findings.verdict if v.tier in ("confirmed", "probable") and v.role != "consequence"]
    assert main == found_
    assert findings.outcome == ("diagnosed" if found_ else "undetermined")

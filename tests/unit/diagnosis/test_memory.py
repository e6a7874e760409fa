from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbook.diagnosis.memory import bars, diagnose, finding, growing, in_memory, kills_by_place, worst
from runbook.diagnosis.memory.processes import Process
from runbook.diagnosis.memory.tables import fullest_first
from runbook.diagnosis.readings import Readings
from runbook.reporting.readings import reading_html
from runbook.result import TIERS, Action, Findings, Reading, Verdict
from tests.unit.diagnosis.machine import GB, MB, Machine, Make, killed
from tests.unit.diagnosis.server import reading

FAILED = ("unreachable", "auth_failed", "permission_denied", "rate_limited", "timeout", "stale")
FULL = (95.0, 95.0, 95.0)


def healthy() -> Machine:
    machine = Machine()
    machine.add("node /srv/api.js", 900)
    machine.add("postgres -D /data", 60)
    for n in range(12):
        machine.add(f"postgres: web app 10.0.0.7(5{n}) idle", 12, own=0.4)
    machine.add("redis-server *:6379", 110)
    machine.cgroups["/system.slice/api.service"] = {"limit": 4000, "working": 900, "cache": 500}
    machine.disks = [{"type": "tmpfs", "mount": "/run", "used_bytes": 2 * MB}]
    return machine


def full(**more: Any) -> Machine:
    machine = healthy()
    machine.used = FULL
    for key, value in more.items():
        setattr(machine, key, value)
    return machine


def leak() -> Machine:
    machine = full(used=(94.0, 94.5, 95.0))
    machine.add("python3 /srv/ingest.py", 9000, grows=80, age=400)
    return machine


def crowd() -> Machine:
    machine = full()
    for _ in range(60):
        machine.add("python3 -m app.consumer", 150, age=600)
    return machine


def cached() -> Machine:
    machine = healthy()
    machine.cgroups["/docker/web"] = {"limit": 1000, "working": 30, "cache": 967, "max_events": (900, 930, 960)}
    return machine


def capped() -> Machine:
    machine = healthy()
    machine.cgroups["/docker/web"] = {"limit": 512, "working": 505, "cache": 3, "max_events": (5, 9, 14)}
    machine.add("node /srv/web.js", 500, cgroup="/docker/web")
    return machine


def killed_in_cgroup() -> Machine:
    machine = healthy()
    machine.cgroups["/docker/web"] = {"limit": 512, "working": 20, "cache": 3, "oom_kills": 1, "max_events": 88}
    machine.memory = {"oom_kills": 1}
    machine.kills = [killed(991, ago=90, cgroup="/docker/web")]
    return machine


def shm() -> Machine:
    machine = full(memory={"shmem_bytes": 7.5 * GB})
    machine.disks = [{"type": "tmpfs", "mount": "/dev/shm", "used_bytes": 7.4 * GB}]
    return machine


def kernel() -> Machine:
    return full(memory={"slab_unreclaimable_bytes": 6 * GB})


def sorts() -> Machine:
    machine = full(settings={"work_mem": "256MB", "shared_buffers": "128MB"})
    for n in range(30):
        machine.add(f"postgres: reports app 10.0.0.9(4{n}) SELECT", 280, own=0.97)
    return machine


def redis_full() -> Machine:
    machine = healthy()
    machine.redis = {"used_memory": 950 * MB, "maxmemory": 1000 * MB}
    return machine


def redis_large() -> Machine:
    machine = full(redis={"used_memory": 5 * GB, "used_memory_rss": 9 * GB})
    machine.add("redis-server 10.0.0.5:6379", 9 * 1024)
    return machine


def burst() -> Machine:
    machine = full()
    for n in range(6):
        machine.add(f"/usr/bin/ffmpeg -i /tmp/{n}.mp4 out.m3u8", 1400, age=40)
    return machine


def thrashing() -> Machine:
    return full(pressure=23.0, memory={"refaults": (100, 9000, 20000), "major_faults": (10, 900, 1900)})


def killed_on_host() -> Machine:
    machine = healthy()
    machine.memory = {"oom_kills": 4}
    machine.kills = [killed(17, ago=40 * 86400.0), killed(812, ago=300)]
    return machine


def huge() -> Machine:
    return full(memory={"hugepages_total": 4000, "hugepages_free": 3900})


def promised() -> Machine:
    machine = healthy()
    machine.memory = {"overcommit_mode": 2, "committed_bytes": 7.9 * GB, "commit_limit_bytes": 8 * GB}
    return machine


MACHINES: dict[str, Make] = {
    "M01": leak,
    "M02": crowd,
    "M04": capped,
    "M04:killed": killed_in_cgroup,
    "M05": shm,
    "M06": kernel,
    "M07": sorts,
    "M08": redis_full,
    "M08:large": redis_large,
    "M09": burst,
    "M10": thrashing,
    "M11": killed_on_host,
    "M12": huge,
    "M12:promised": promised,
}
ASKED = {"cgroup": "/docker/web"}


def run(machine: Machine, **parameters: Any) -> Findings:
    return diagnose(machine.readings(), parameters)


def by_cause(findings: Findings) -> dict[str, Verdict]:
    return {v.cause: v for v in findings.verdict}


def found(findings: Findings) -> list[str]:
    return [v.cause for v in findings.verdict if v.tier in ("confirmed", "probable") and v.role != "consequence"]


def evidence(findings: Findings, identity: str) -> Any:
    return next(e for e in findings.evidence if e.id == identity)


def action(findings: Findings, kind: str) -> Action | None:
    return next((a for a in findings.actions if a.kind == kind), None)


# -- each cause -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MACHINES)
def test_each_cause_is_found_and_no_other(name: str) -> None:
    findings = run(MACHINES[name]())
    assert (found(findings), findings.outcome) == ([name.partition(":")[0]], "diagnosed")


def test_a_healthy_machine_is_healthy() -> None:
    findings = run(healthy())
    assert (found(findings), findings.outcome, findings.symptom.breached) == (["M00"], "healthy", False)
    assert findings.actions == []


def test_a_leak_is_named_with_pid_pace_and_the_time_that_is_left() -> None:
    machine = leak()
    details = by_cause(run(machine))["M01"].details
    assert details["pid"] == machine.processes[-1]["pid"]
    assert (details["grew_mb"], details["mb_per_minute"]) == (160.0, 2400.0)
    assert details["minutes_left"] == pytest.approx(0.8 * GB / (40 * MB) / 60, abs=0.1)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"grows": 1}, "it grows too little"),
        ({"grows": 0}, "it does not grow"),
        ({"grows": -80}, "it shrinks"),
    ],
)
def test_what_is_no_leak(how: dict[str, Any], why: str) -> None:
    machine = leak()
    machine.processes[-1] |= how
    assert by_cause(run(machine))["M01"].tier == "excluded", why


@pytest.mark.parametrize(("mb", "tier"), [(9000, "probable"), (900, "possible")])
def test_a_start_grows_as_a_leak_does_and_is_never_sure(mb: float, tier: str) -> None:
    machine = leak()
    machine.processes[-1] |= {"age": 12, "mb": mb}
    findings = run(machine)
    assert by_cause(findings)["M01"].tier == tier
    assert "only 12 s old" in evidence(findings, "M01.lasts").label


def test_a_start_where_memory_is_not_short_is_nothing() -> None:
    machine = leak()
    machine.used = (20.0, 20.5, 21.0)
    machine.processes[-1] |= {"age": 12, "mb": 900}
    findings = run(machine)
    assert (by_cause(findings)["M01"].tier, findings.outcome) == ("excluded", "healthy")


def test_growth_between_two_garbage_collections_is_no_leak() -> None:
    machine = full(used=(94.0, 94.5, 95.0))
    machine.add("node /srv/render.js", 9000, grows=60, age=86400 * 3)
    findings = run(machine)
    assert by_cause(findings)["M01"].tier not in ("confirmed", "probable")
    assert evidence(findings, "M01.lasts").reading == "refutes"


def test_a_leak_that_began_late_and_is_quick_is_still_a_leak() -> None:
    machine = full(used=(88.0, 92.0, 95.0))
    machine.add("node /srv/render.js", 9000, grows=1200, age=86400 * 3)
    assert by_cause(run(machine))["M01"].tier == "probable"


def test_two_samples_are_not_enough_for_a_leak() -> None:
    machine = leak()
    machine.used = (95.0, 95.0)
    findings = run(machine)
    assert by_cause(findings)["M01"].tier == "undetermined"
    assert "it takes 3" in evidence(findings, "M01.grows").reason


def test_a_process_that_grows_on_a_host_with_plenty_is_only_possible() -> None:
    machine = leak()
    machine.used, machine.total_gb = (20.0, 20.0, 20.0), 512.0
    findings = run(machine)
    assert by_cause(findings)["M01"].tier == "possible"
    assert findings.outcome == "healthy" or findings.outcome == "undetermined"


def test_a_leak_that_uses_the_host_up_within_minutes_breaches_before_the_threshold() -> None:
    machine = leak()
    machine.used = (70.0, 70.5, 71.0)
    machine.processes[-1] |= {"grows": 800, "age": 25, "mb": 9000}
    findings = run(machine, settled_seconds=10)
    assert (found(findings), findings.symptom.threshold, findings.symptom.breached) == (["M01"], 100.0, True)
    assert "in 15 minutes" in findings.symptom.label
    assert "used up in" in findings.impact


def test_a_minimum_that_rises_over_the_window_is_a_leak_and_a_sawtooth_is_none() -> None:
    machine = full(history=[n * 100 * MB + (n % 3) * 40 * MB for n in range(5, 45)])
    assert found(run(machine)) == ["M01"]
    machine.history = [(300 + 200 * (n % 8)) * MB for n in range(40)]
    assert by_cause(run(machine))["M01"].tier == "excluded"


def test_many_processes_that_share_one_giant_are_not_many() -> None:
    machine = full()
    for n in range(30):
        machine.add("python3 -m app.consumer", 6000 if n == 0 else 20)
    assert by_cause(run(machine))["M02"].tier not in ("confirmed", "probable")


def test_sessions_of_postgresql_are_not_called_many_processes() -> None:
    assert by_cause(run(sorts()))["M02"].tier == "excluded"


def test_many_processes_on_a_host_with_plenty_are_no_finding() -> None:
    machine = crowd()
    machine.used = (60.0, 60.0, 60.0)
    assert run(machine).outcome == "healthy"


def test_transcoders_are_known_by_their_program_and_not_by_what_else_the_line_says() -> None:
    machine = full()
    for n in range(4):
        machine.add(f"python3 worker.py --ffmpeg /usr/bin/ffmpeg {n}", 2000, age=40)
    assert by_cause(run(machine))["M09"].tier == "excluded"


# -- cgroups ----------------------------------------------------------------------------------------------------------


def test_page_cache_in_the_cgroup_that_was_asked_about_is_a_false_alarm() -> None:
    findings = run(cached(), **ASKED)
    assert (found(findings), findings.symptom.breached) == (["M03"], False)
    assert by_cause(findings)["M04"].tier == "excluded"
    assert "caches" not in json.dumps([a.by_hand for a in findings.actions])


def test_page_cache_somewhere_on_the_host_explains_nothing() -> None:
    findings = run(cached())
    assert by_cause(findings)["M03"].tier == "excluded"
    assert findings.outcome == "healthy"


def test_page_cache_where_something_was_killed_is_no_false_alarm() -> None:
    machine = cached()
    machine.cgroups["/docker/web"]["oom_kills"] = 1
    machine.kills = [killed(5, ago=60, cgroup="/docker/web")]
    assert found(run(machine, **ASKED)) == ["M04"]


def test_a_cgroup_at_its_limit_is_never_called_a_shortage_of_the_host() -> None:
    details = by_cause(run(capped()))["M04"].details
    assert (details["cgroup"], details["limit_mb"], details["host_percent"]) == ("/docker/web", 512.0, 50.0)


def test_a_kill_in_a_cgroup_stands_behind_its_limit() -> None:
    findings = run(killed_in_cgroup(), **ASKED)
    verdicts = by_cause(findings)
    assert (verdicts["M11"].role, verdicts["M11"].consequence_of) == ("consequence", "M04")
    assert verdicts["M04"].details["killed"][0]["pid"] == 991


def test_a_leak_in_a_cgroup_is_what_brings_it_to_its_limit() -> None:
    machine = capped()
    machine.cgroups["/docker/web"] |= {"working": (470, 485, 500)}
    machine.processes[-1] |= {"grows": 15, "age": 70}
    findings = run(machine)
    assert found(findings) == ["M01"]
    assert by_cause(findings)["M04"].consequence_of == "M01"
    assert by_cause(findings)["M01"].details["cgroup"] == "/docker/web"


def test_a_cgroup_that_was_asked_about_and_is_not_there_is_unknown() -> None:
    machine = healthy()
    machine.instead["cgroup"] = reading("cgroup", [], source="host", state="partial", reason="no cgroup /docker/web")
    findings = run(machine, **ASKED)
    assert (findings.outcome, findings.symptom.breached) == ("undetermined", None)


def test_the_limit_is_raised_only_with_what_the_host_has_free() -> None:
    raised = action(run(capped()), "cgroup.raise_limit")
    assert raised is not None
    assert (raised.preconditions[0].holds, raised.undo) == (True, "the same with 512M")
    assert "memory.max" in raised.by_hand


# -- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", ["readable", "forbidden"])
def test_a_kill_of_long_ago_is_no_fault(log: str) -> None:
    machine = healthy()
    machine.memory = {"oom_kills": 3}
    machine.kills = [killed(17, ago=40 * 86400.0)]
    if log == "forbidden":
        machine.instead["oom_kills"] = reading("oom_kills", None, source="host", state="not_configured", reason="…")
    findings = run(machine)
    assert by_cause(findings)["M11"].tier == "excluded"
    assert findings.outcome == ("healthy" if log == "readable" else "no_current_fault")


def test_a_log_that_did_not_come_leaves_a_counter_undated() -> None:
    machine = healthy()
    machine.memory = {"oom_kills": 3}
    machine.instead["oom_kills"] = reading("oom_kills", None, source="host", state="timeout", reason="…")
    findings = run(machine)
    assert (by_cause(findings)["M11"].tier, findings.outcome) == ("undetermined", "undetermined")


def test_without_any_counted_kill_the_log_is_not_missed() -> None:
    machine = healthy()
    machine.instead["oom_kills"] = reading("oom_kills", None, source="host", state="timeout", reason="…")
    assert run(machine).outcome == "healthy"


def test_a_counter_that_rises_while_we_look_is_a_kill_without_any_log() -> None:
    machine = healthy()
    machine.memory = {"oom_kills": (3, 3, 4)}
    machine.instead["oom_kills"] = reading("oom_kills", None, source="host", state="not_configured", reason="…")
    assert found(run(machine)) == ["M11"]


def test_a_kill_in_a_cgroup_that_is_gone_says_nothing_of_now() -> None:
    machine = healthy()
    machine.memory = {"oom_kills": 1}
    machine.kills = [killed(991, ago=30, cgroup="/docker/0ld")]
    findings = run(machine)
    assert findings.outcome == "no_current_fault"
    assert evidence(findings, "M11.gone").value == 1


def test_exit_137_in_the_log_is_a_kill_where_no_kernel_can_be_asked() -> None:
    machine = healthy()
    machine.log = {"exit 137": 2, "ENOMEM": 1}
    assert found(run(machine)) == ["M11"]


# -- Redis, PostgreSQL, Node, the kernel ------------------------------------------------------------------------------


def test_a_cache_that_evicts_is_full_by_design() -> None:
    machine = redis_full()
    machine.redis["maxmemory_policy"] = "allkeys-lru"
    assert run(machine).outcome == "healthy"


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"used_memory_rss": 1600 * MB}, "fragmentation"),
        ({"mem_clients_normal": 500 * MB}, "buffers"),
        ({"rdb_bgsave_in_progress": 1, "current_cow_size": 80 * MB}, "copy"),
        ({}, "data"),
    ],
)
def test_redis_says_what_it_uses_the_memory_for(facts: dict[str, Any], kind: str) -> None:
    machine = redis_full()
    machine.redis |= facts
    assert by_cause(run(machine))["M08"].details["kind"] == [kind]


def test_of_several_redis_the_one_that_was_asked_is_named() -> None:
    machine = redis_full()
    pid = machine.add("redis-server *:6380", 900)
    machine.redis["process_id"] = pid
    assert by_cause(run(machine))["M08"].details["pids"] == [pid]


def test_fragmentation_of_a_small_redis_is_none() -> None:
    machine = redis_full()
    machine.redis = {"used_memory": 9 * MB, "maxmemory": 10 * MB, "used_memory_rss": 60 * MB}
    assert by_cause(run(machine))["M08"].details["kind"] == ["data"]


def test_large_shared_buffers_are_told_from_work_mem() -> None:
    machine = full()
    for n in range(10):
        machine.add(f"postgres: web app 10.0.0.7({n}) idle", 700, own=0.05)
    assert by_cause(run(machine))["M07"].details["kind"] == "shared_buffers"
    assert by_cause(run(sorts()))["M07"].details["kind"] == "work_mem"


def test_a_statement_that_holds_the_most_is_cancelled_by_pid_and_start() -> None:
    machine = sorts()
    pid = machine.processes[-1]["pid"]
    session = {"pid": pid, "backend_start": "2026-01-01T00:00:00+00:00", "state": "active", "role": "re\"port'er",
               "application_name": "x"}  # fmt: skip
    machine.processes[-1]["mb"] = 400
    machine.instead["sessions"] = reading("sessions", [session])
    findings = run(machine)
    cancel, lower = action(findings, "postgres.cancel"), action(findings, "postgres.lower_work_mem")
    assert cancel is not None
    assert lower is not None
    assert f"pid = {pid}\n  AND backend_start = '2026-01-01T00:00:00+00:00'" in cancel.by_hand
    assert 'ALTER ROLE "re""port\'er" SET' in lower.by_hand
    assert not [a for a in findings.actions if "kill" in a.by_hand or "terminate" in a.by_hand]


def test_a_full_heap_is_a_symptom_and_without_growth_no_leak() -> None:
    machine = healthy()
    machine.processes[0]["command"] = "node --max-old-space-size=512 /srv/api.js"
    machine.heap_mb = 500
    findings = run(machine)
    assert (findings.symptom.label, findings.symptom.breached) == ("Node heap, of --max-old-space-size", True)
    assert findings.outcome == "undetermined"


def test_promises_beyond_memory_are_usual_where_the_kernel_does_not_keep_count() -> None:
    machine = promised()
    machine.memory |= {"overcommit_mode": 0, "committed_bytes": 90 * GB}
    assert run(machine).outcome == "healthy"


def test_pressure_without_pages_that_come_back_is_no_thrashing() -> None:
    machine = healthy()
    machine.pressure = 23.0
    findings = run(machine)
    assert findings.symptom.breached
    assert by_cause(findings)["M10"].tier == "possible"


def test_a_kernel_that_keeps_no_account_of_pressure_blocks_nothing() -> None:
    machine = healthy()
    machine.instead["pressure"] = reading("pressure", None, source="host", state="not_configured", reason="…")
    assert run(machine).outcome == "healthy"


def test_a_tmpfs_that_is_mounted_twice_counts_once() -> None:
    machine = shm()
    machine.disks = [machine.disks[0], dict(machine.disks[0])]
    machine.memory["shmem_bytes"] = 15 * GB
    assert by_cause(run(machine))["M05"].details["mb"] == pytest.approx(7.4 * 1024, abs=1)


# -- the symptom ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "breached"),
    [((95.0, 95.0, 80.0), True), ((95.0, 80.0, 80.0), False), ((80.0, 80.0, 80.0), False), ((91.0,), True)],
)
def test_two_of_three_samples_must_breach(used: tuple[float, ...], breached: bool) -> None:
    machine = healthy()
    machine.used = used
    assert run(machine).symptom.breached is breached


def test_a_peak_that_is_over_is_no_current_fault() -> None:
    machine = healthy()
    machine.used = (95.0, 60.0, 60.0)
    assert run(machine).outcome == "no_current_fault"


def test_one_sample_leaves_a_leak_open() -> None:
    machine = leak()
    machine.used = (95.0,)
    assert run(machine).outcome == "undetermined"


def test_hidden_processes_leave_their_causes_unknown() -> None:
    machine = full(memory={"anonymous_bytes": 13 * GB})
    findings = run(machine)
    assert {by_cause(findings)[c].tier for c in ("M01", "M02", "M07", "M09")} == {"undetermined"}
    assert "hidden from us" in evidence(findings, "M01.grows").reason
    assert findings.outcome == "undetermined"


# -- several at once --------------------------------------------------------------------------------------------------


def together(*machines: Machine) -> list[Reading]:
    """The readings of several hosts, as one run takes them."""
    every = [machine.readings() for machine in machines]
    return [
        replace(first, value=[row for other in same for row in other.rows]) if first.source == "host" else first
        for first, *rest in zip(*every, strict=True)
        for same in [(first, *rest)]
    ]


def test_of_several_hosts_the_one_that_leaks_is_named() -> None:
    sick, well = leak(), healthy()
    sick.host, well.host = "worker@10.0.0.2", "worker@10.0.0.3"
    findings = diagnose(together(well, sick), {})
    assert found(findings) == ["M01"]
    assert by_cause(findings)["M01"].details["host"] == "worker@10.0.0.2"


def test_a_host_that_does_not_answer_keeps_the_rest_from_being_called_healthy() -> None:
    machine = healthy()
    rows = [*machine.readings()[0].rows, {"host": "worker@10.0.0.9", "state": "unreachable", "reason": "refused"}]
    lost = reading("memory", rows, source="host", state="partial", reason="worker@10.0.0.9: unreachable")
    findings = diagnose([lost if r.name == "memory" else r for r in machine.readings()], {})
    assert findings.outcome == "undetermined"
    assert "worker@10.0.0.9" in evidence(findings, "M01.grows").reason
    assert [n.state for n in findings.not_checked] == ["partial"]


def test_a_leak_beside_a_full_redis_is_a_compound_of_both() -> None:
    machine = leak()
    machine.redis = {"used_memory": 950 * MB, "maxmemory": 1000 * MB}
    assert set(found(run(machine))) == {"M01", "M08"}


def test_other_runbooks_are_told_the_leading_finding() -> None:
    told = finding(Readings(leak().readings()))
    assert told is not None
    assert told.cause == "M01"
    assert finding(Readings(healthy().readings())) is None
    assert finding(Readings([])) is None


def test_thresholds_come_from_the_parameters() -> None:
    machine = healthy()
    machine.used = (75.0, 75.0, 75.0)
    assert run(machine).symptom.breached is False
    assert run(machine, threshold_percent=70).symptom.breached is True


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_two_hundred_hosts_are_readable_in_the_report() -> None:
    rows = [{"host": f"h{n}", "total_bytes": GB, "used_percent": 40.0 + n / 10} for n in range(190)]
    rows += [{"host": f"dead{n}", "state": "timeout", "reason": "no answer"} for n in range(10)]
    shown = fullest_first(reading("memory", rows, source="host", state="partial", reason="10 of 200 hosts"))
    assert shown is not None
    page = reading_html(shown, caption="Memory by host")
    assert "Showing 40 of 200 rows" in page
    assert page.index("h189") < page.index("dead0") < page.index("h160")
    assert all(f"dead{n}<" in page for n in range(10))


def test_the_dead_are_named_before_the_rest_is_folded() -> None:
    rows = [{"host": f"h{n}", "total_bytes": GB, "used_percent": float(n % 97)} for n in range(190)]
    rows += [{"host": f"dead{n}", "state": "unreachable", "reason": "refused"} for n in range(10)]
    random.Random(3).shuffle(rows)
    shown = fullest_first(reading("memory", rows, source="host", state="partial", reason="…"))
    assert shown is not None
    assert len(shown.rows) == 200
    first = shown.rows[:40]
    assert [r["used_percent"] for r in first[:20]] == sorted((r["used_percent"] for r in first[:20]), reverse=True)
    assert {r["host"] for r in first if "reason" in r} == {f"dead{n}" for n in range(10)}
    assert worst(reading("memory", rows, source="host"), 2)[0] in ("h96", "h193")


def test_what_grew_and_what_lies_in_memory_is_listed() -> None:
    machine = leak()
    machine.disks = [{"type": "tmpfs", "mount": "/dev/shm", "used_bytes": 5 * MB}] * 2
    grown = growing(machine.readings(), {})
    files = in_memory(next(r for r in machine.readings() if r.name == "disk"))
    assert grown is not None
    assert files is not None
    assert [(r["grew_mb"], r["settled"]) for r in grown.rows] == [(160.0, True)]
    assert [r["mount"] for r in files.rows] == ["/dev/shm"]


def test_kills_are_shown_by_place_the_latest_first() -> None:
    log = [killed(1, ago=900), *(killed(n, ago=600 - n, cgroup="/docker/web") for n in range(5)),
           {"host": "h9", "state": "unreachable", "reason": "refused"}]  # fmt: skip
    shown = kills_by_place(reading("oom_kills", log, source="host"))
    assert shown is not None
    assert [(r.get("cgroup"), r.get("kills"), r.get("latest_pid")) for r in shown.rows] == [
        ("/docker/web", 5, 4), ("", 1, 1), (None, None, None),
    ]  # fmt: skip


def test_the_chart_has_the_place_of_the_finding_its_programs_and_the_rest() -> None:
    machine = capped()
    machine.used = (50.0, 50.0, 50.0)
    drawn = bars(machine.readings(), {}, run(machine))
    assert drawn is not None
    assert (drawn.place, drawn.limit, drawn.bars[0].name) == (
        "cgroup /docker/web on this host", 512 * MB, f"node web.js (pid {machine.processes[-1]['pid']})",
    )  # fmt: skip
    assert drawn.used == sum(bar.size for bar in drawn.bars) + drawn.rest
    assert bars([], {}) is None


@pytest.mark.parametrize(
    ("title", "program"),
    [
        ("node --max-old-space-size=512 /srv/api.js --port 80", "node api.js"),
        ("/usr/bin/python3.11 -m app.consumer -q", "python3.11 app.consumer"),
        ("python3 -c import", "python3 -c"),
        ("nginx: worker process", "nginx"),
        ("/usr/sbin/sshd -D", "sshd"),
        ("java -jar app.jar", "java app.jar"),
        ("", ""),
    ],
)
def test_a_program_is_told_by_its_script(title: str, program: str) -> None:
    process = Process(host="h", pid=1, command=title, cgroup="", age_seconds=1, sizes=(1.0,), measure="anonymous",
                      anonymous=1.0, span_seconds=1)  # fmt: skip
    assert process.program == program


# -- properties -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", [*MACHINES, "healthy"])
def test_the_same_readings_give_the_same_bytes(cause: str) -> None:
    make = (MACHINES | {"healthy": healthy})[cause]
    once = json.dumps(diagnose(make().readings(), {}).as_dict())
    shuffled = make().readings()
    for taken in shuffled:
        if taken.name in ("cgroup", "disk", "oom_kills", "app_errors"):
            random.Random(7).shuffle(taken.value)
    assert json.dumps(diagnose(shuffled, {}).as_dict()) == once


NAMES = sorted({r.name for make in (*MACHINES.values(), healthy, cached) for r in make().readings()})


@settings(max_examples=300, deadline=None)
@given(
    cause=st.sampled_from([*MACHINES, "healthy", "M03"]),
    lost=st.sets(st.sampled_from(NAMES), min_size=1),
    state=st.sampled_from(FAILED),
)
@example(cause="M11", lost={"oom_kills"}, state="unreachable")
@example(cause="M04:killed", lost={"oom_kills"}, state="timeout")
@example(cause="M01", lost={"memory"}, state="timeout")
def test_a_failed_reading_never_raises_a_cause(cause: str, lost: set[str], state: str) -> None:
    complete = (MACHINES | {"healthy": healthy, "M03": cached})[cause]().readings()
    cut: list[Reading] = [
        replace(r, state=state, reason="…", value=None) if r.name in lost else r  # type: ignore[arg-type]
        for r in complete
    ]
    before = {v.cause: v.tier for v in diagnose(complete, ASKED).verdict}
    for after in diagnose(cut, ASKED).verdict:
        if after.tier in ("confirmed", "probable"):
            assert TIERS.index(after.tier) >= TIERS.index(before[after.cause]), after
            assert before[after.cause] in ("confirmed", "probable"), after

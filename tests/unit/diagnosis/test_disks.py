from __future__ import annotations

import json
import random
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook.diagnosis.disks import diagnose, finding, overview, prevention, short_of_space, suspects
from runbook.diagnosis.disks.filesystems import paces_of
from runbook.diagnosis.disks.words import kind
from runbook.diagnosis.readings import Readings
from runbook.result import TIERS, Findings, Verdict
from tests.unit.diagnosis.filesystems import GB, Machine, disk, slot
from tests.unit.diagnosis.server import reading

FAILED = ("unreachable", "auth_failed", "permission_denied", "rate_limited", "timeout", "stale")
FULL = 97 * GB


def full(**more: Any) -> Machine:
    """A machine whose one disk is nearly full."""
    return Machine(disks=[disk(used=FULL)], **more)


def log_grows() -> Machine:
    return Machine(written={"/srv/logs/api.log": (20 * GB, 17e6, 4711)}, disks=[disk(used=60 * GB)])


def logs_fill() -> Machine:
    return full(written={"/srv/logs/api.log": (60 * GB, 0.0, 4711)})


def slot_keeps() -> Machine:
    return Machine(slots=[slot()], wal={"wal_bytes": 5 * GB})


def archiver_fails() -> Machine:
    return Machine(wal={"archive_mode": "on", "archiver_failing": True, "failed_count": 7, "wal_ready": 40,
                        "last_failed_wal": "000000010000000000000042", "wal_bytes": 8e8})  # fmt: skip


def ordinary_wal() -> Machine:
    return Machine(disks=[disk("/wal", size=1.2e9, used=1.15e9)], wal={"wal_bytes": 1.05e9}, data_mount="/wal")


def spills() -> Machine:
    row = {"pid": 4711, "bytes": 30 * GB, "application_name": "report", "state": "active", "query_seconds": 90,
           "backend_start": "2026-03-01T02:00:00+00:00", "query": "SELECT ?"}  # fmt: skip
    return full(spills=[row])


def table_grows() -> Machine:
    return Machine(disks=[disk(used=70 * GB)], database_pace=9e6,
                   relations=[{"relation": "public.events", "bytes": 9 * GB, "dead_percent": 0.1}])  # fmt: skip


def bloat() -> Machine:
    return full(relations=[{"relation": "public.sessions", "bytes": 40 * GB, "dead_percent": 71.0}])


def deleted() -> Machine:
    row = {"host": "local", "pid": 4711, "command": "node", "path": "/srv/logs/old.log", "bytes": 30 * GB, "mount": "/"}
    return full(deleted=[row])


def inodes() -> Machine:
    return Machine(disks=[disk(inodes_used=9.9e5)], many=[{"host": "local", "path": "/srv/sessions", "files": 9e5}])


def left_over() -> Machine:
    return full(places=[{"kind": "tmp", "path": "/srv/tmp", "bytes": 30 * GB}],
                old={f"/srv/tmp/upload-{n}.part": (5 * GB, 40.0, False) for n in range(5)})  # fmt: skip


def images() -> Machine:
    return full(places=[{"kind": "image", "path": "/var/lib/docker/overlay2", "bytes": 60 * GB}])


def reserve() -> Machine:
    return Machine(disks=[disk(used=80 * GB, reserve=20 * GB)])


def hidden() -> Machine:
    return full(below=[{"host": "local", "mount": "/", "path": "/srv/media", "bytes": 30 * GB}])


def read_only() -> Machine:
    disks = [disk(), disk("/srv/tmp", read_only=True, options="ro,relatime")]
    return Machine(disks=disks, places=[{"kind": "tmp", "path": "/srv/tmp", "bytes": 1e6, "mount": "/srv/tmp"}])


def quota() -> Machine:
    return Machine(errors={"EDQUOT": 12})


def thin_pool() -> Machine:
    return Machine(volumes=[{"host": "local", "kind": "thin pool", "name": "vg/pool", "data_percent": 99.1}])


def redis_saves() -> Machine:
    return full(written={"/srv/redis/temp-4712.rdb": (20 * GB, 0.0, 4712)}, saving=1)


MACHINES: dict[str, Callable[[], Machine]] = {
    "D01": log_grows, "D01:full": logs_fill, "D02": slot_keeps, "D03": archiver_fails, "D04": ordinary_wal,
    "D05": spills, "D06": table_grows, "D06:bloat": bloat, "D07": deleted, "D08": inodes, "D09": left_over,
    "D10": images, "D11": reserve, "D12": hidden, "D13": read_only, "D14": quota, "D14:pool": thin_pool,
    "D15": redis_saves,
}  # fmt: skip


def run(machine: Machine, **parameters: Any) -> Findings:
    return diagnose(machine.readings(), parameters)


def found(findings: Findings) -> list[str]:
    return [v.cause for v in findings.verdict
            if v.tier in ("confirmed", "probable") and v.role != "consequence" and v.cause != "D16"]  # fmt: skip


def verdict(findings: Findings, cause: str) -> Verdict:
    return next(v for v in findings.verdict if v.cause == cause)


# -- every cause ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", MACHINES)
def test_each_cause_is_found_first_and_alone(case: str) -> None:
    findings = run(MACHINES[case]())
    assert found(findings) == [case.partition(":")[0]]
    assert findings.outcome == "diagnosed"
    assert findings.verdict[0].tier == "confirmed"


@pytest.mark.parametrize("case", MACHINES)
def test_each_finding_proposes_something_with_an_undo_or_says_that_there_is_none(case: str) -> None:
    actions = run(MACHINES[case]()).actions
    assert actions
    assert all(a.by_hand and a.undo for a in actions)
    assert {a.cause for a in actions} == {case.partition(":")[0]}


@pytest.mark.parametrize("case", MACHINES)
def test_no_action_ever_touches_the_write_ahead_log(case: str) -> None:
    text = json.dumps([a.__dict__ for a in run(MACHINES[case]()).actions], default=str)
    assert "pg_wal" not in text
    assert "rm " not in text.replace("rm frees nothing", "")


def test_a_machine_with_room_is_healthy() -> None:
    findings = run(Machine())
    assert (findings.outcome, found(findings)) == ("healthy", [])
    assert findings.symptom.value == 40.0
    assert findings.symptom.breached is False


def test_an_image_that_is_full_by_nature_is_no_alarm() -> None:
    image = disk("/snap/core", type="squashfs", size=1e8, used=1e8, pseudo=True, read_only=True)
    findings = run(Machine(disks=[image, disk(used=60 * GB)]))
    assert (findings.outcome, found(findings)) == ("healthy", [])
    assert findings.symptom.value == 60.0
    assert verdict(findings, "D16").details["full_by_nature"][0]["mount"] == "/snap/core"


# -- what must be named, and what must not ----------------------------------------------------------------------------


def test_a_log_is_named_with_its_path_its_writer_and_its_pace() -> None:
    details = verdict(run(log_grows()), "D01").details
    assert (details["path"], details["writer_pid"], details["mount"]) == ("/srv/logs/api.log", 4711, "/")
    assert details["hourly_growth_bytes"] == pytest.approx(17e6 * 3600, rel=0.01)
    assert details["hours_to_full"] == pytest.approx(40 * GB / 17e6 / 3600, rel=0.01)


def test_a_log_that_runs_away_is_named_on_a_disk_that_would_take_it_for_days() -> None:
    machine = Machine(disks=[disk(size=9000 * GB, used=900 * GB)], written={"/srv/api.log": (2 * GB, 17e6, 4711)})
    findings = run(machine)
    assert found(findings) == ["D01"]
    assert (findings.symptom.breached, findings.outcome) == (False, "diagnosed")
    machine.written = {"/srv/api.log": (2 * GB, 2e6, 4711)}
    assert found(run(machine)) == []


def test_a_writer_that_ended_while_we_looked_is_named_all_the_same() -> None:
    readings = log_grows().readings()
    last = max(n for n, r in enumerate(readings) if r.name == "written_files")
    logs = [{"host": "local", "path": "/srv/logs/api.log", "bytes": 20 * GB, "writer_pid": None}]
    readings[last] = replace(readings[last], value=[])
    readings.append(reading("log_files", logs, source="host"))
    assert verdict(diagnose(readings, {}), "D01").details["writer_pid"] == 4711


def test_a_log_that_grows_slowly_on_a_disk_with_room_is_nothing() -> None:
    machine = Machine(written={"/srv/logs/api.log": (2 * GB, 2000.0, 4711)})
    assert run(machine).outcome == "healthy"


def test_a_log_that_trickles_on_a_disk_that_something_else_filled_is_not_the_cause() -> None:
    machine = deleted()
    machine.written = {"/srv/logs/api.log": (1e8, 2000.0, 9)}
    assert found(run(machine)) == ["D07"]


def test_a_log_below_a_directory_of_images_is_a_log_and_images_are_not_named_beside_it() -> None:
    machine = logs_fill()
    machine.written = {"/var/lib/docker/containers/ab/ab-json.log": (60 * GB, 5e6, 7)}
    machine.places = [{"kind": "image", "path": "/var/lib/docker/overlay2", "bytes": 25 * GB},
                      {"kind": "journal", "path": "/var/log/journal", "bytes": 4 * GB}]  # fmt: skip
    assert found(run(machine)) == ["D01"]


def test_images_are_not_named_beside_a_slot_that_fills_the_disk() -> None:
    machine = full(slots=[slot(retained=30 * GB)], wal={"wal_bytes": 31 * GB},
                   places=[{"kind": "image", "path": "/var/lib/docker/overlay2", "bytes": 30 * GB}])  # fmt: skip
    assert found(run(machine)) == ["D02"]


@pytest.mark.parametrize(
    "one",
    [
        slot(active=True),
        slot(temporary=True),
        slot(wal_status="lost"),
        slot(retained=30e6),
        {**slot(), "retained_bytes": None},
    ],
    ids=["read", "temporary", "lost", "little", "reserves nothing"],
)
def test_a_slot_that_keeps_nothing_that_matters_is_no_cause(one: dict[str, Any]) -> None:
    machine = Machine(slots=[one])
    if one["retained_bytes"] is None:
        machine.slots, machine.instead = [], {"disk_slots": reading("disk_slots", [one])}
    assert found(run(machine)) == []


def test_an_inactive_slot_below_the_limit_that_does_not_grow_is_at_most_possible() -> None:
    assert verdict(run(Machine(slots=[slot(retained=4e8)])), "D02").tier == "possible"


def test_an_inactive_slot_that_grows_is_named_before_it_is_beyond_any_limit() -> None:
    machine = Machine(slots=[slot(retained=4e8, wal_status="reserved")], slot_pace=5e6)
    assert found(run(machine)) == ["D02"]


def test_a_slot_on_another_filesystem_than_the_alerts_is_not_its_cause() -> None:
    machine = slot_keeps()
    machine.disks = [disk(), disk("/media", used=50 * GB)]
    assert found(run(machine, mount="/media")) == []
    machine.disks[0]["holds"] = True
    assert found(run(machine, mount="/srv/pg/data")) == ["D02"]


def test_a_slot_is_found_where_nobody_knows_how_full_the_disk_of_the_server_is() -> None:
    machine = slot_keeps()
    names = ("disk", "database_files")
    machine.instead = {name: reading(name, None, state="not_configured", reason="elsewhere") for name in names}
    assert found(run(machine)) == ["D02"]


def test_slot_and_archiver_that_keep_the_same_segments_are_both_named() -> None:
    machine = archiver_fails()
    machine.slots = [slot()]
    assert sorted(found(run(machine))) == ["D02", "D03"]


def test_an_archiver_that_recovered_is_no_cause() -> None:
    machine = archiver_fails()
    machine.wal["archiver_failing"] = False
    assert found(run(machine)) == []


def test_a_large_table_that_stands_still_is_no_cause() -> None:
    machine = full(relations=[{"relation": "public.content", "bytes": 80 * GB, "dead_percent": 3.0}])
    findings = run(machine)
    assert found(findings) == []
    assert findings.outcome == "undetermined"


def test_a_small_spill_is_no_cause_and_one_elsewhere_is_unknown() -> None:
    machine = spills()
    machine.spills[0]["bytes"] = 1e8
    assert verdict(run(machine), "D05").tier == "excluded"
    machine = spills()
    machine.data_mount = ""
    assert verdict(run(machine), "D05").tier == "undetermined"


def test_files_that_are_open_or_young_are_not_left_over() -> None:
    machine = left_over()
    machine.old = {"/srv/tmp/a": (25 * GB, 40.0, True)}
    assert verdict(run(machine), "D09").tier == "excluded"
    machine.old["/srv/tmp/b"] = (25 * GB, 40.0, None)
    assert verdict(run(machine), "D09").tier == "undetermined"
    machine.old = {"/srv/tmp/a": (25 * GB, 2.0, False)}
    assert verdict(run(machine), "D09").tier == "excluded"


def test_old_files_are_deleted_only_below_a_configured_directory() -> None:
    machine = left_over()
    [action] = run(machine).actions
    assert action.kind == "files.delete_temporary"
    assert all({"host", "path", "bytes", "modified_at"} == set(target) for target in action.targets)
    machine.places = []
    [action] = run(machine).actions
    assert (action.kind, "delete" in action.by_hand) == ("files.ask_owner", False)


def test_files_of_a_job_that_still_runs_are_not_confirmed_to_be_left_over() -> None:
    machine = left_over()
    machine.active = [{"id": "1", "processed_at": "2026-02-25T03:00:00+00:00"}]
    assert verdict(run(machine), "D09").tier != "confirmed"


def test_a_read_only_filesystem_that_the_alert_names_is_open_until_it_is_known_whether_it_must_be_written() -> None:
    machine = read_only()
    machine.places = []
    assert run(machine, mount="/srv/tmp").outcome == "undetermined"
    machine.errors = {"EROFS": 3}
    assert found(run(machine, mount="/srv/tmp")) == ["D13"]


def test_an_ordinary_filesystem_in_an_image_that_the_alert_names_and_that_is_read_only_is_left_open() -> None:
    """Who mounts ext4 read-only may mean it so; who remounted it may have been the kernel."""
    machine = Machine(disks=[disk(), disk("/data", size=GB, used=0.1 * GB, read_only=True, filesystem="/dev/loop3")])
    assert run(machine, mount="/data").outcome == "undetermined"


def test_an_image_that_the_alert_names_is_a_false_alarm() -> None:
    tools = disk("/opt/tools", size=GB, used=GB, read_only=True, type="squashfs", pseudo=True)
    findings = run(Machine(disks=[disk(), tools]), mount="/opt/tools")
    assert (findings.outcome, findings.verdict[0].cause) == ("healthy", "D16")
    assert (findings.symptom.value, findings.symptom.breached) == (100.0, False)
    assert "nobody can write" in findings.symptom.label


def test_wal_that_grows_within_its_limits_fills_nothing() -> None:
    machine = Machine(wal_pace=40e6, disks=[disk(used=60 * GB)])
    assert run(machine).outcome == "healthy"
    machine.slots, machine.slot_pace = [slot(retained=4e8)], 40e6
    findings = run(machine)
    assert (found(findings), findings.symptom.breached) == (["D02"], True)


def test_a_slot_that_grew_between_two_looks_only_grows() -> None:
    machine = Machine(slots=[slot(retained=4e8)])
    readings = machine.readings()
    last = max(n for n, r in enumerate(readings) if r.name == "disk_slots")
    readings[last] = replace(readings[last], value=[slot(retained=4e8 + 9e6)])
    assert found(diagnose(readings, {})) == ["D02"]
    readings[last] = replace(readings[last], value=[slot(retained=4e8 + 200)])
    assert found(diagnose(readings, {})) == []


def test_a_read_only_filesystem_that_nobody_writes_to_is_no_fault() -> None:
    machine = read_only()
    machine.places = []
    assert run(machine).outcome == "healthy"


def test_a_reserve_on_a_disk_with_room_is_no_fault_and_on_a_full_one_it_follows_from_what_filled_it() -> None:
    assert run(Machine(disks=[disk(used=40 * GB, reserve=30 * GB)])).outcome == "healthy"
    machine = deleted()
    machine.disks = [disk(used=95 * GB, reserve=5 * GB)]
    findings = run(machine)
    assert found(findings) == ["D07"]
    assert verdict(findings, "D11").consequence_of == "D07"


def test_inodes_of_a_filesystem_that_has_none_are_not_short() -> None:
    assert run(Machine(disks=[disk(inodes=None, inodes_used=None)])).outcome == "healthy"


def test_each_filesystem_is_judged_on_its_own() -> None:
    machine = deleted()
    machine.disks = [disk(used=FULL), disk("/srv/logs", used=10 * GB)]
    machine.deleted[0]["mount"] = "/srv/logs"
    assert found(run(machine)) == []
    machine.disks = [disk(used=10 * GB), disk("/srv/logs", used=FULL)]
    assert found(run(machine)) == ["D07"]


def test_a_device_that_is_mounted_twice_is_one_filesystem() -> None:
    machine = deleted()
    machine.disks = [
        disk("/data", used=FULL, filesystem="/dev/sdb1"),
        disk("/etc/hosts", used=FULL, filesystem="/dev/sdb1"),
    ]
    machine.deleted[0]["mount"] = "/etc/hosts"
    findings = run(machine)
    assert verdict(findings, "D07").details["mount"] == "/data"
    assert len(overview(machine.readings(), {})) == 1
    assert found(run(machine, mount="/etc/hosts")) == ["D07"]


def test_two_filesystems_in_memory_are_two() -> None:
    machine = deleted()
    machine.disks = [disk("/run", size=GB, used=0.1 * GB, filesystem="tmpfs", type="tmpfs"),
                     disk("/tmp", size=GB, used=0.1 * GB, filesystem="tmpfs", type="tmpfs")]  # fmt: skip
    assert len(overview(machine.readings(), {})) == 2


def test_log_and_slot_at_once_are_both_named() -> None:
    machine = log_grows()
    machine.slots, machine.slot_pace, machine.wal = [slot()], 5e6, {"wal_bytes": 5 * GB}
    assert sorted(found(run(machine))) == ["D01", "D02"]


# -- unknown stays unknown --------------------------------------------------------------------------------------------


def test_open_files_of_others_that_are_hidden_leave_it_open_whether_deleted_ones_fill_the_disk() -> None:
    machine = full(hidden_processes=12)
    findings = run(machine)
    assert verdict(findings, "D07").tier == "undetermined"
    assert findings.outcome == "undetermined"
    assert any("D07" in n.blocks for n in findings.not_checked)


def test_open_files_of_others_that_are_hidden_do_not_matter_where_nothing_is_short() -> None:
    assert run(Machine(hidden_processes=12)).outcome == "healthy"


def test_what_is_seen_of_deleted_files_may_suffice_although_others_are_hidden() -> None:
    machine = deleted()
    machine.hidden_processes = 12
    assert found(run(machine)) == ["D07"]


def test_a_database_that_the_role_may_not_enter_may_be_the_one_that_grows() -> None:
    rows = [{"database": "app", "bytes": 3 * GB}, {"database": "closed", "bytes": None}]
    seen = full()
    assert verdict(run(seen), "D06").tier == "excluded"
    seen.instead["disk_databases"] = reading("disk_databases", rows)
    assert verdict(run(seen), "D06").tier == "undetermined"


def test_a_host_that_does_not_answer_is_not_healthy() -> None:
    lost = [disk(), {"host": "w2", "state": "unreachable", "reason": "no route"}]
    machine = Machine(instead={"disk": reading("disk", lost, source="host", state="partial", reason="w2: no route")})
    assert run(machine).outcome == "undetermined"


def test_a_mount_that_is_no_path_is_unknown_and_never_the_root() -> None:
    findings = run(full(), mount="C:\\")
    assert (findings.outcome, findings.symptom.value) == ("undetermined", None)


def test_a_mount_that_nobody_has_is_not_healthy_because_the_root_is() -> None:
    """It was unmounted, or it is another machine's."""
    findings = run(Machine(), mount="/data")
    assert findings.outcome == "undetermined"
    reason = next(e.reason for e in findings.evidence if e.id == "D16.quiet")
    assert reason == "nothing is mounted at /data, and it is no path either, on what was looked at (local)"
    assert reason in findings.impact


def test_what_is_short_elsewhere_is_told_although_the_mount_that_was_named_is_not_there() -> None:
    assert found(run(log_grows(), mount="/data")) == ["D01"]


def test_a_path_on_a_filesystem_stands_for_it() -> None:
    assert run(Machine(disks=[disk(holds=True)]), mount="/var/lib/app").outcome == "healthy"


def test_a_mount_below_which_no_root_may_be_looked_at_is_undetermined() -> None:
    machine = hidden()
    machine.below[0]["bytes"] = None
    findings = run(machine)
    assert verdict(findings, "D12").tier == "undetermined"
    assert "root" in next(e for e in findings.evidence if e.id == "D12.takes").reason


def test_growth_of_a_disk_whose_source_nobody_saw_is_unknown_when_it_would_matter() -> None:
    machine = Machine(written={"/x": (1 * GB, 9e6, 1)}, disks=[disk(used=99 * GB, size=130 * GB)])
    readings = [r if r.name != "written_files" else replace(r, value=[]) for r in machine.readings()]
    findings = diagnose(readings, {})
    assert (findings.outcome, found(findings)) == ("undetermined", [])


def test_nothing_read_is_undetermined_and_claims_nothing() -> None:
    findings = diagnose([], {})
    assert findings.outcome == "undetermined"
    assert {v.tier for v in findings.verdict} <= {"undetermined", "excluded"}
    assert findings.symptom.value is None


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(MACHINES)), st.integers(0, 10_000), st.floats(0.05, 0.9))
def test_what_could_not_be_read_never_raises_a_cause(case: str, seed: int, share: float) -> None:
    readings = MACHINES[case]().readings()
    before = {v.cause: v.tier for v in diagnose(readings, {}).verdict}
    rng = random.Random(seed)
    lost = {name for name in {r.name for r in readings} if rng.random() < share}
    state = rng.choice(FAILED)
    blind = [replace(r, state=state, value=None, reason="lost") if r.name in lost else r for r in readings]
    findings = diagnose(blind, {})
    for v in findings.verdict:
        if v.tier == "undetermined" or v.cause == "D11":  # what explains the reserve may be lost
            continue
        assert TIERS.index(v.tier) >= TIERS.index(before[v.cause]) or v.cause == "D16", (v.cause, v.tier, sorted(lost))
    if lost & {"disk"}:
        assert findings.outcome != "healthy"


@pytest.mark.parametrize("case", MACHINES)
def test_the_same_readings_give_the_same_findings(case: str) -> None:
    readings = MACHINES[case]().readings()
    assert json.dumps(diagnose(readings, {}).as_dict()) == json.dumps(diagnose(list(readings), {}).as_dict())


# -- the metrics server -----------------------------------------------------------------------------------------------


def history(mount: str, *, instance: str = "db1:9100", **measures: float) -> list[dict[str, Any]]:
    return [{"instance": instance, "mountpoint": mount, "fstype": "ext4", "device": "/dev/sda1", "measure": name,
             "value": value} for name, value in measures.items()]  # fmt: skip


def test_the_last_hour_of_the_metrics_server_tells_how_soon_a_disk_is_full() -> None:
    rows = history("/", size=100 * GB, available=60 * GB, available_before=85 * GB, least_available=60 * GB)
    findings = run(Machine(history=rows))
    assert findings.symptom.breached is True
    assert findings.symptom.value == pytest.approx(60 / 25, abs=0.01)
    assert "the last hour" in findings.symptom.label
    assert findings.outcome == "undetermined", "what fills it was not seen"


def test_a_disk_that_recovered_within_the_hour_was_a_fault() -> None:
    rows = history("/", size=100 * GB, available=60 * GB, available_before=60 * GB, least_available=5 * GB)
    findings = run(Machine(history=rows))
    assert findings.outcome == "no_current_fault"
    assert findings.symptom.peak == 95.0


def test_without_hosts_the_metrics_servers_filesystems_are_judged() -> None:
    rows = history("/", size=100 * GB, free=4 * GB, available=4 * GB, available_before=4.1 * GB)
    rows += history("/", instance="db2:9100", size=100 * GB, free=60 * GB, available=60 * GB, available_before=60 * GB)
    machine = Machine(history=rows, instead={"disk": reading("disk", None, state="not_configured", reason="no hosts")})
    findings = run(machine)
    assert (findings.symptom.value, findings.outcome) == (96.0, "undetermined")
    assert "db1:9100" in findings.symptom.label
    assert run(machine, instance="db2:9100").symptom.value == 40.0


# -- words and numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "is_a"),
    [
        ("/var/lib/postgresql/16/main/pg_wal/000000010000000000000042", "wal"),
        ("/var/lib/postgresql/16/main/base/pgsql_tmp/pgsql_tmp4711.3", "spill"),
        ("/var/lib/postgresql/16/main/base/16384/24576.1", "relation"),
        ("/var/log/journal/ab/system.journal", "journal"),
        ("/var/lib/docker/overlay2/ab/diff/usr/lib/x.so", "image"),
        ("/var/lib/docker/containers/ab/ab-json.log", "log"),
        ("/var/lib/docker/overlay2/ab/diff/app/server.log", "log"),
        ("/srv/app/logs/today", "log"),
        ("/srv/app/server.log.3.gz", "log"),
        ("/var/log/nginx/access.log-20260301", "log"),
        ("/srv/redis/temp-812.rdb", "redis_temp"),
        ("/srv/redis/dump.rdb", "redis"),
        ("/srv/core.4711", "core"),
        ("/srv/tmp/upload.part", "tmp"),
        ("/srv/catalogue/blog", "other"),
        ("/home/core/data", "other"),
    ],
)
def test_a_file_is_what_its_path_says(path: str, is_a: str) -> None:
    assert kind(path, tmp=["/srv/tmp"]) == is_a


@pytest.mark.parametrize(
    ("sizes", "pace"),
    [
        ([10, 20, 30], 5.0),
        ([10, 20, 15], None),
        ([10, 10, 30], None),
        ([10, 20, 20, 30, 40], 3.75),
        ([10, 10, 10], None),
        ([10], None),
    ],
)
def test_only_what_grows_most_of_the_time_and_never_shrinks_has_a_pace(sizes: list[float], pace: float | None) -> None:
    assert paces_of((2.0 * n, {"x": size}) for n, size in enumerate(sizes)).get("x") == pace


def test_looks_right_after_each_other_are_one() -> None:
    assert paces_of([(0.0, {"x": 10.0}), (1.0, {"x": 20.0}), (1.05, {"x": 20.0})])["x"] == pytest.approx(10 / 1.05)


# -- for the other runbooks, and around the verdict -------------------------------------------------------------------


def test_other_runbooks_get_the_leading_finding_and_the_filesystem_that_is_short() -> None:
    taken = Readings(deleted().readings())
    leading = finding(taken)
    assert leading is not None
    assert leading.cause == "D07"
    short = short_of_space(taken)
    assert short is not None
    assert (short["mount"], short["used_percent"]) == ("/", 97.0)
    assert finding(Readings(Machine().readings())) is None
    assert short_of_space(Readings([])) is None


def test_only_filesystems_that_are_nearly_full_are_walked_through() -> None:
    machine = Machine(
        disks=[disk(used=40 * GB), disk("/data", used=81 * GB), disk("/snap", used=1e8, size=1e8, pseudo=True)]
    )
    assert suspects(machine.readings(), {}) == ["/data"]


def test_the_overview_tells_images_from_alarms() -> None:
    image = disk("/snap/core", type="squashfs", size=1e8, used=1e8, pseudo=True)
    gauges = {g.name: g for g in overview(Machine(disks=[image, disk(used=FULL)]).readings(), {})}
    assert (gauges["/"].alarming, gauges["/snap/core"].alarming) == (True, False)


def test_guards_are_read_and_never_guessed() -> None:
    checks = {c["check"]: c["holds"] for c in prevention(Machine().readings())}
    assert checks["a slot may keep only so much WAL"] is False
    assert checks["a query may spill only so much"] is False
    assert checks["filesystems below 80 %"] is True
    assert {c["holds"] for c in prevention([])} == {None}


def test_a_large_log_without_rotation_is_told() -> None:
    rotated = {c["check"]: c for c in prevention(log_grows().readings())}["large logs are rotated"]
    assert rotated["holds"] is True
    machine = Machine(written={"/opt/x/huge.log": (1 * GB, 0.0, 1)})
    missed = {c["check"]: c for c in prevention(machine.readings())}["large logs are rotated"]
    assert (missed["holds"], "/opt/x/huge.log" in missed["value"]) == (False, True)


@pytest.mark.parametrize("name", ["/srv/logs/$(reboot).log", "/srv/logs/a'; rm -rf /;'.log", "/srv/logs/-x\n.log"])
def test_a_hostile_file_name_stays_one_word_in_what_is_to_be_copied(name: str) -> None:
    machine = full(written={name: (60 * GB, 0.0, 4711)})
    actions = run(machine).actions
    rotate = next(a for a in actions if a.kind == "logs.rotate")
    assert shlex.quote(name) in rotate.by_hand

"""Cgroups of the sandbox's own, and processes that use memory or processors up in them, on the real kernel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook.connectors.base import Context
from runbook.connectors.host import Host
from runbook.errors import SandboxError
from runbook.sandbox import cgroups, hogs, processes
from runbook.sandbox.cgroups import MemoryCgroup
from runbook.sandbox.faults import machine
from runbook.settings import Workers
from tests.support import missing, wait_until

MB = 2**20


@pytest.fixture
def group() -> Iterator[MemoryCgroup]:
    if lacking := machine.memory_cgroups():
        missing(f"a memory cgroup ({lacking})")
    made = cgroups.make(64 * MB)
    yield made
    made.remove()


def host() -> Host:
    return Host(Context(), Workers(hosts=["local"]))


def procs(group: MemoryCgroup) -> str:
    return str(group.directory / "cgroup.procs")


def test_what_a_process_takes_in_it_is_seen_there_and_the_process_with_it(group: MemoryCgroup) -> None:
    order = {"act": "leak", "join": procs(group), "begin_mb": 24, "mb_per_second": 20, "most_mb": 20}
    child = processes.spawn(hogs.MODULE, order)
    try:
        first = host().cgroup(group.path).rows[0]
        time.sleep(0.4)
        row = host().cgroup(group.path).rows[0]
        seen = next(r for r in host().processes(hogs.MODULE).rows if r["pid"] == child.pid)
    finally:
        child.end()
    assert row["limit_bytes"] == 64 * MB
    assert 24 * MB < first["working_set_bytes"] < row["working_set_bytes"]
    assert row["working_set_percent"] == pytest.approx(100 * row["working_set_bytes"] / (64 * MB), abs=0.1)
    assert seen["cgroup"] == group.path
    assert seen["anonymous_bytes"] > 24 * MB


def test_a_kill_at_its_limit_is_counted_and_dated(group: MemoryCgroup) -> None:
    group.limit(24 * MB)
    child = processes.spawn(hogs.MODULE, {"act": "killed", "procs": procs(group), "again": False})
    try:
        rows = host().cgroup(group.path).rows
        log = host().oom_kills()
    finally:
        child.end()
    assert (child.greeting["status"], group.kills, rows[0]["oom_kills"]) == (-9, 1, 1)
    if log.state == "not_configured":
        pytest.skip(f"the kill cannot be dated here: {log.reason}")
    ours = [r for r in log.rows if r["pid"] == child.greeting["pid"]]
    assert [(r["cgroup"], r["constraint"]) for r in ours] == [(group.path, "CONSTRAINT_MEMCG")]
    assert ours[0]["age_seconds"] < 60


def test_page_cache_fills_it_without_being_its_working_set(group: MemoryCgroup, tmp_path: Path) -> None:
    path = tmp_path / "cache.bin"
    child = processes.spawn(hogs.MODULE, {"act": "files", "join": procs(group), "path": str(path), "mb": 80})
    try:
        row = host().cgroup(group.path).rows[0]
    finally:
        child.end()
    assert not path.exists()
    if row["inactive_file_bytes"] == 0:
        pytest.skip("the test directory lies in memory: there is no page cache of it")
    assert row["usage_bytes"] > 0.8 * 64 * MB
    assert row["working_set_percent"] < 50


def test_it_is_gone_afterwards_and_not_while_something_runs_in_it() -> None:
    if lacking := machine.memory_cgroups():
        missing(f"a memory cgroup ({lacking})")
    made = cgroups.make(64 * MB)
    assert made.directory.is_dir()
    made.remove()
    assert not made.directory.exists()
    made.remove()


def test_a_quota_that_is_used_up_is_counted_and_who_was_borrowed_goes_back() -> None:
    if lacking := machine.quotas():
        missing(f"a cgroup with a quota ({lacking})")
    made = cgroups.make_with_quota(0.1, 0.1)
    borrowed = processes.spawn(hogs.MODULE, {"act": "burn"})
    try:
        before = Path(f"/proc/{borrowed.pid}/cgroup").read_text(encoding="utf-8")
        give_back = made.borrow(borrowed.pid)
        assert made.pids == [borrowed.pid]
        wait_until(lambda: made.throttled > 2, seconds=30)
        (row,) = (row for row in host().cgroup().rows if row["path"] == made.path)
        assert row["cpu_quota_cores"] == pytest.approx(0.1)
        assert row["cpu_periods"] >= row["cpu_throttled"] > 2
        give_back()
        assert (made.pids, Path(f"/proc/{borrowed.pid}/cgroup").read_text(encoding="utf-8")) == ([], before)
    finally:
        borrowed.end()
        made.remove()


def test_what_cannot_be_made_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    with pytest.raises(SandboxError, match="no memory controller"):
        cgroups.make(MB)

"""Facts of hosts: recorded roots of ``/proc`` and of cgroups, this very host, and one behind a real OpenSSH server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from runbook.connectors.base import Context
from runbook.connectors.host import Host
from runbook.connectors.shell import Shell, script_argv, with_functions
from runbook.settings import Workers
from tests.integration.connectors.sshd import Home, Sshd
from tests.support import free_port, wait_until

MEMINFO = """MemTotal:       8000000 kB
MemFree:          300000 kB
MemAvailable:    2000000 kB
Cached:          1900000 kB
Shmem:            120000 kB
SUnreclaim:        90000 kB
SwapTotal:             0 kB
SwapFree:              0 kB
Committed_AS:    6000000 kB
CommitLimit:     4000000 kB
HugePages_Total:       0
HugePages_Free:        0
Hugepagesize:       2048 kB
"""
STAT = "{pid} (a (odd) name) S 1 1 1 0 -1 4194560 900 0 3 0 250 50 0 0 20 0 7 0 5000 0 0"


def written(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A host with one process, as its kernel wrote it."""
    status = "Name:\tnode\nVmRSS:\t  500000 kB\nRssAnon:\t  410000 kB\n"
    rollup = "5581-7ffd ---p 00000000 00:00 0    [rollup]\nRss:    500000 kB\nPss:   450000 kB\nAnonymous: 410000 kB\n"
    limits = "Limit                     Soft Limit           Hard Limit           Units\n" \
             "Max open files            4096                 8192                 files\n"  # fmt: skip
    tcp = "  sl  local_address rem_address   st tx_queue rx_queue\n" \
          "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000081 00:00000000\n" \
          "   1: 0100007F:1F90 0100007F:8C00 01 00000000:00000000 00:00000000\n"  # fmt: skip
    root = written(
        tmp_path / "proc",
        {
            "meminfo": MEMINFO, "vmstat": "pgmajfault 812\noom_kill 3\nworkingset_refault_anon 5\n"
            "workingset_refault_file 70\n", "loadavg": "1.50 1.00 0.50 3/400 4242\n", "uptime": "1050.5 2000.0\n",
            "stat": "cpu  1 2 3\ncpu0 1 2 3\ncpu1 1 2 3\n", "net/tcp": tcp,
            "net/netstat": "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 0 17\n",
            "mounts": "/dev/sda1 / ext4 rw 0 0\n",
            "pressure/memory": "some avg10=7.25 avg60=1.00 avg300=0.10 total=123456\n"
            "full avg10=5.50 avg60=0.90 avg300=0.10 total=99\n", "4242/stat": STAT.format(pid=4242),
            "4242/status": status, "4242/smaps_rollup": rollup, "4242/limits": limits,
            "4242/cmdline": "node\0/srv/app.js\0--port=80\0",
        },
    )  # fmt: skip
    (root / "4242/fd").mkdir()
    for number in range(3):
        (root / f"4242/fd/{number}").symlink_to("/dev/null")
    return root


def host(
    proc: Path | str = "/proc", cgroups: Path | str = "/sys/fs/cgroup", *, on: tuple[str, ...] = ("local",)
) -> Host:
    return Host(Context(), Workers(hosts=list(on)), proc=str(proc), cgroups=str(cgroups))


# -- recorded roots ---------------------------------------------------------------------------------------------------


def test_memory_in_use_is_what_is_not_available(proc: Path) -> None:
    row = host(proc).memory().rows[0]
    assert row["used_percent"] == 75.0
    assert (row["total_bytes"], row["available_bytes"]) == (8000000 * 1024, 2000000 * 1024)
    assert (row["oom_kills"], row["major_faults"], row["refaults"]) == (3, 812, 75)
    assert (row["hugepage_bytes"], row["committed_bytes"]) == (2048 * 1024, 6000000 * 1024)


def test_what_an_older_kernel_does_not_say_is_unknown_and_not_zero(proc: Path) -> None:
    (proc / "meminfo").write_text("\n".join(line for line in MEMINFO.splitlines() if "Available" not in line))
    (proc / "vmstat").write_text("pgmajfault 812\n")
    row = host(proc).memory().rows[0]
    assert (row["available_bytes"], row["used_percent"], row["oom_kills"]) == (None, None, None)


def test_a_process_has_its_memory_its_files_and_its_age(proc: Path) -> None:
    row = host(proc).processes().rows[0]
    assert (row["pid"], row["parent"], row["state"], row["threads"]) == (4242, 1, "S", 7)
    assert (row["rss_bytes"], row["pss_bytes"], row["anonymous_bytes"]) == (512000000, 460800000, 419840000)
    assert (row["open_files"], row["open_files_limit"]) == (3, 4096)
    assert row["command"] == "node /srv/app.js --port=80"
    assert row["age_seconds"] == pytest.approx(1050.5 - 5000 / os.sysconf("SC_CLK_TCK"), abs=1)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("12:cpu,cpuacct:/c\n4:memory:/docker/a:b\n0::/x\n", "/docker/a:b"),
        ("0::/system.slice/api.service\n", "/system.slice/api.service"),
        ("3:cpuset:/\n", ""),
    ],
    ids=["v1", "v2", "no memory controller"],
)
def test_a_process_has_the_cgroup_that_its_memory_is_charged_to(proc: Path, text: str, path: str) -> None:
    (proc / "4242/cgroup").write_text(text)
    assert host(proc).processes().rows[0]["cgroup"] == path


def test_swap_and_the_mode_of_overcommit_are_read(proc: Path) -> None:
    written(proc, {"vmstat": "pswpin 7\npswpout 8\n", "sys/vm/overcommit_memory": "2\n"})
    row = host(proc).memory().rows[0]
    assert (row["swapped_in"], row["swapped_out"], row["overcommit_mode"]) == (7, 8, 2)


KERNEL_LOG = (
    "[    0.000000] Linux version 6.1\n"
    "[  100.000000] node invoked oom-killer: gfp_mask=0xcc0, order=0, oom_score_adj=0\n"
    "[  100.100000] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    "oom_memcg=/docker/web,task_memcg=/docker/web/a,task=node,pid=77,uid=0\n"
    "[  100.200000] Memory cgroup out of memory: Killed process 77 (node (worker)) total-vm:82172kB, "
    "anon-rss:72000kB, file-rss:6612kB\n"
    "[  900.000000] Out of memory: Killed process 88 (java) total-vm:82172kB, anon-rss:1000kB, file-rss:6612kB\n"
    "[  950.000000] Task in /old/a killed as a result of limit of /old\n"
    "[  950.100000] Memory cgroup out of memory: Kill process 99 (php) score 900 or sacrifice child\n"
    "[  950.200000] Killed process 99 (php) total-vm:82172kB, anon-rss:2000kB, file-rss:6612kB\n"
)


def test_kills_are_dated_by_the_kernels_log(proc: Path, tmp_path: Path) -> None:
    log = written(tmp_path, {"dmesg": KERNEL_LOG}) / "dmesg"
    reading = host(proc).oom_kills(str(log))
    assert reading.state == "ok"
    found = [(r["age_seconds"], r["pid"], r["command"], r["rss_bytes"], r["cgroup"]) for r in reading.rows]
    assert found == [
        (950.3, 77, "node (worker)", 72000 * 1024, "/docker/web"),
        (150.5, 88, "java", 1000 * 1024, ""),
        (100.3, 99, "php", 2000 * 1024, "/old"),
    ]


def test_a_log_that_does_not_reach_back_to_the_boot_says_so(proc: Path, tmp_path: Path) -> None:
    log = written(tmp_path, {"dmesg": "[  800.000000] nothing\n"}) / "dmesg"
    reading = host(proc).oom_kills(str(log))
    assert (reading.state, reading.rows) == ("partial", [])
    assert "begins 800 s after the boot" in reading.reason


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_who_may_not_read_the_kernels_log_says_so_and_not_that_nothing_was_killed() -> None:
    if Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() == "0":
        pytest.skip("everybody may read the kernel log here")
    text = with_functions('host_oom "$@"')
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *script_argv("oom_kills", text, ["/proc"])]
    reading = Shell(Context()).run("oom_kills", argv)
    assert (reading.state, reading.value) == ("not_configured", None)


def test_a_recorded_root_without_a_log_has_no_kills_of_this_host(proc: Path) -> None:
    assert host(proc).oom_kills().state == "not_configured"


@pytest.mark.parametrize(("pattern", "count"), [(r"app\.js", 1), ("postgres", 0), ("^node .*80$", 1)])
def test_processes_are_chosen_by_a_pattern(proc: Path, pattern: str, count: int) -> None:
    assert len(host(proc).processes(pattern).rows) == count


def test_pressure_has_a_row_for_each_scope(proc: Path) -> None:
    rows = host(proc).pressure().rows
    assert [(r["resource"], r["scope"], r["avg10"]) for r in rows] == [
        ("memory", "some", 7.25),
        ("memory", "full", 5.5),
    ]


def test_a_kernel_without_pressure_information_is_not_configured(tmp_path: Path) -> None:
    assert host(written(tmp_path, {"loadavg": "0 0 0 1/1 1\n"})).pressure().state == "not_configured"


def test_load_counts_the_processors(proc: Path) -> None:
    row = host(proc).load().rows[0]
    assert (row["cores"], row["load_1"], row["runnable"], row["boot_seconds"]) == (2, 1.5, 3, 1050.5)
    (proc / "stat").write_text("cpu  100 5 40 800 20 1 4 30 60 7\ncpu0 50 5 20 400 10 1 2 15 30 7\n")
    row = host(proc).load().rows[0]
    assert (row["cores"], row["all_ticks"], row["idle_ticks"]) == (1, 1000, 820)


def test_a_listening_socket_has_its_queue(proc: Path) -> None:
    assert host(proc).sockets().rows == [
        {"host": "local", "local": "127.0.0.1:8080", "waiting": 129, "backlog": None, "overflows": 17}
        | dict.fromkeys(HOLDER)
        | {"state": "", "command": ""}
    ]


HOLDER = ("pid", "processes", "state", "age_seconds", "cpu_seconds", "open_files", "open_files_limit", "command")

V2 = {"memory.current": "1000", "memory.max": "2000",
      "memory.stat": "anon 300\nshmem 20\ninactive_file 600\npgmajfault 9\n"
      "workingset_refault_anon 2\nworkingset_refault_file 5\n",
      "memory.events": "low 0\nhigh 0\nmax 41\noom 2\noom_kill 1\n", "cpu.stat": "nr_periods 10\nnr_throttled 4\n",
      "cpu.max": "150000 100000", "pids.current": "12", "pids.max": "max"}  # fmt: skip
V1 = {"memory/web/memory.usage_in_bytes": "1000", "memory/web/memory.limit_in_bytes": "2000",
      "memory/web/memory.stat": "inactive_file 1\ntotal_inactive_file 600\ntotal_rss 300\ntotal_shmem 20\n"
      "total_pgmajfault 9\ntotal_workingset_refault_anon 2\ntotal_workingset_refault_file 5\n",
      "memory/web/memory.failcnt": "41",
      "memory/web/memory.oom_control": "under_oom 0\noom_kill 1\n",
      "cpu/web/cpu.stat": "nr_periods 10\nnr_throttled 4\n",
      "cpu/web/cpu.cfs_quota_us": "150000", "cpu/web/cpu.cfs_period_us": "100000", "pids/web/pids.current": "12",
      "pids/web/pids.max": "max"}  # fmt: skip
HYBRID = V1 | {"unified/cgroup.controllers": "hugetlb misc\n", "unified/web/memory.pressure": ""}
KINDS = {
    "v2": ({"cgroup.controllers": "cpu memory pids\n"} | {f"web/{name}": text for name, text in V2.items()}, 2),
    "v1": (V1, 1),
    "v2 without the memory controller": (HYBRID, 1),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["", "/web", "web"])
def test_a_cgroup_reads_alike_in_every_version(tmp_path: Path, kind: str, path: str) -> None:
    files, version = KINDS[kind]
    reading = host(cgroups=written(tmp_path, files)).cgroup(path)
    assert reading.rows == [
        {
            "host": "local", "version": version, "path": "/web", "usage_bytes": 1000, "limit_bytes": 2000,
            "inactive_file_bytes": 600, "working_set_bytes": 400, "working_set_percent": 20.0, "max_events": 41,
            "oom_kills": 1, "cpu_periods": 10, "cpu_throttled": 4, "cpu_quota_cores": 1.5, "pids": 12,
            "pids_limit": None, "anonymous_bytes": 300, "shmem_bytes": 20, "major_faults": 9, "refaults": 7,
            "pressure_full_avg10": None,
        }
    ]  # fmt: skip


def test_without_a_path_only_cgroups_with_a_limit_are_listed(tmp_path: Path) -> None:
    unlimited = V2 | {"memory.max": "max", "memory.events": "max 0\n"}
    free = {f"free/{name}": text for name, text in (unlimited | {"cpu.max": "max 100000"}).items()}
    slow = {f"slow/{name}": text for name, text in unlimited.items()}
    root = written(tmp_path, KINDS["v2"][0] | free | slow)
    found = {row["path"]: (row["limit_bytes"], row["cpu_quota_cores"]) for row in host(cgroups=root).cgroup().rows}
    assert found == {"/web": (2000, 1.5), "/slow": (None, 1.5)}
    assert host(cgroups=root).cgroup("/free").rows[0]["limit_bytes"] is None


def test_in_version_1_a_quota_is_seen_without_a_cgroup_of_memory(tmp_path: Path) -> None:
    only = {f"cpu/batch.slice/{name.rpartition('/')[2]}": text for name, text in V1.items() if name.startswith("cpu/")}
    looked = host(cgroups=written(tmp_path, V1 | only))
    found = {row["path"]: (row["cpu_quota_cores"], row["usage_bytes"]) for row in looked.cgroup().rows}
    assert found == {"/web": (1.5, 1000), "/batch.slice": (1.5, None)}
    (row,) = looked.cgroup("/batch.slice").rows
    assert (row["cpu_throttled"], row["working_set_percent"], row["limit_bytes"]) == (4, None, None)


def test_pressure_inside_a_cgroup_is_read_where_the_kernel_keeps_it(tmp_path: Path) -> None:
    pressure = "some avg10=9.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=6.25 avg60=0.00 avg300=0.00 total=1\n"
    root = written(tmp_path, KINDS["v2"][0] | {"web/memory.pressure": pressure})
    assert host(cgroups=root).cgroup("/web").rows[0]["pressure_full_avg10"] == 6.25


@pytest.mark.parametrize("path", ["../../etc", "/web/../..", "nothing-there"])
def test_a_path_that_is_no_cgroup_gives_no_row(tmp_path: Path, path: str) -> None:
    reading = host(cgroups=written(tmp_path, KINDS["v2"][0])).cgroup(path)
    assert (reading.state, reading.rows) == ("partial", [])


# -- this host --------------------------------------------------------------------------------------------------------


def test_df_of_this_host_is_the_systems_own() -> None:
    row = next(r for r in host().disk("/").rows if r["mount"] == "/")
    room = os.statvfs("/")
    assert row["size_bytes"] == room.f_blocks * room.f_frsize
    used = row["used_bytes"] / (row["used_bytes"] + row["available_bytes"])
    assert row["used_percent"] == pytest.approx(100 * used, abs=0.01)
    assert (row["read_only"], row["pseudo"]) == (False, False)


def test_a_deleted_file_that_is_held_open_is_found_with_its_holder(tmp_path: Path) -> None:
    code = "import sys, time; f = open(sys.argv[1], 'wb'); f.write(b'x' * 3_000_000); f.flush(); " \
           "print(1, flush=True); time.sleep(60)"  # fmt: skip
    path = tmp_path / "a file.log"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            writers = {r["path"]: r["writer_pid"] for r in host().log_files([str(tmp_path)]).rows}
            assert writers == {str(path): child.pid}
            path.unlink()
            rows = [r for r in host().deleted_files().rows if r["path"] == str(path)]
            assert [r["pid"] for r in rows] == [child.pid]
            assert rows[0]["bytes"] >= 3_000_000
        finally:
            child.kill()


def test_old_files_tell_whether_they_are_open(tmp_path: Path) -> None:
    for name in ("open", "shut"):
        path = written(tmp_path, {name: "x" * 5000}) / name
        os.utime(path, (1e9, 1e9))
    written(tmp_path, {"new": "x"})
    with (tmp_path / "open").open():
        rows = {Path(r["path"]).name: r for r in host().old_files([str(tmp_path)]).rows}
    assert {name: row["open"] for name, row in rows.items()} in (
        {"open": True, "shut": False},
        {"open": True, "shut": None},
    )
    assert rows["shut"]["age_hours"] > 24


def test_the_largest_directory_comes_first(tmp_path: Path) -> None:
    written(tmp_path, {"small/a": "x", "large/b": "x" * 400_000})
    rows = host().directories([str(tmp_path)]).rows
    assert [Path(r["path"]).name for r in rows][:2] == [tmp_path.name, "large"]
    assert rows[1]["changed_bytes_per_hour"] >= 400_000


def test_a_full_queue_of_a_listening_socket_shows() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=5))
        port = server.getsockname()[1]
        for _ in range(2):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        rows = [r for r in host().sockets().rows if r["local"].endswith(f":{port}")]
    assert [r["waiting"] for r in rows] == [2]


# -- over SSH ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Sshd]]:
    home = Home(tmp_path_factory.mktemp("home"))
    sshd = Sshd(tmp_path_factory.mktemp("sshd") / "one", home).start()
    yield home, sshd
    sshd.stop()


@pytest.fixture
def remote(server: tuple[Home, Sshd], monkeypatch: pytest.MonkeyPatch) -> str:
    home, sshd = server
    monkeypatch.setenv("HOME", str(home.directory))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    home.configure("")
    home.trust(sshd)
    return sshd.address


def test_a_host_over_ssh_gives_the_same_facts(proc: Path, remote: str) -> None:
    here, there = host(proc).memory().rows[0], host(proc, on=(remote,)).memory().rows[0]
    assert there == here | {"host": remote}
    assert host(proc, on=(remote,)).processes().rows[0]["command"] == "node /srv/app.js --port=80"


def test_of_two_hundred_hosts_the_silent_ones_are_named(proc: Path) -> None:
    silent = [f"worker@127.0.0.1:{free_port()}" for _ in range(3)]
    names = ["local", *silent, *(f"worker{number}@127.0.0.1:{free_port()}" for number in range(196))]
    reading = host(proc, on=tuple(names)).memory()
    assert [row["host"] for row in reading.rows] == list(dict.fromkeys(names))
    assert reading.rows[0]["used_percent"] == 75.0
    assert all(row["state"] in ("unreachable", "timeout") for row in reading.rows[1:])
    assert reading.state == "partial"
    assert reading.duration_ms < 17_000


def test_of_many_hosts_some_are_asked(proc: Path) -> None:
    many = host(proc, on=("local", f"worker@127.0.0.1:{free_port()}"))
    assert [row["host"] for row in many.among(["local", "stranger"]).processes().rows] == ["local"]
    assert many.among([]).processes().state == "not_configured"


def test_no_hosts_are_not_configured_and_never_this_one() -> None:
    assert host(on=()).memory().state == "not_configured"


def test_processes_of_workers_are_those_that_the_settings_describe() -> None:
    named = Host(Context(), Workers(hosts=["local"], process_pattern="sleep 61[.]25"))
    process = subprocess.Popen(["sleep", "61.25"])
    try:
        (row,) = wait_until(lambda: named.worker_processes().value, what="the process")
    finally:
        process.kill()
        process.wait()
    assert (row["host"], row["pid"], row["state"]) == ("local", process.pid, "S")


def test_without_a_pattern_no_process_is_taken_for_a_workers() -> None:
    reading = Host(Context(), Workers(hosts=["local"])).worker_processes()
    assert (reading.state, reading.reason) == ("not_configured", "workers.process_pattern is not set")

"""What a host's disks hold, read for real: files that are written, places, large files, what a mount hides."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook.connectors import shell
from runbook.connectors.base import Context
from runbook.connectors.host import Host
from runbook.sandbox.faults import machine
from runbook.settings import Workers
from tests.support import missing, require_program

WRITER = "import sys, time; f = open(sys.argv[1], 'ab', buffering=0); print(f.write(b'x' * 400_000), flush=True)\n" \
         "while True: f.write(b'x' * 50_000); time.sleep(0.05)"  # fmt: skip
HOSTILE = ("$(touch {marker})", "`touch {marker}`", "a b", "-rf", "x'; touch {marker}; '", 'q"\\')


def host() -> Host:
    return Host(Context(), Workers(hosts=["local"]))


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A process that writes a log without end."""
    path = tmp_path / "a growing.log"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield child.pid, path
        finally:
            child.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of our own, in memory."""
    if lacking := machine.mounts():
        missing(lacking.removeprefix("needs "))
    place = tmp_path / "disk"
    place.mkdir()
    mount, umount = require_program("mount", package="mount"), require_program("umount", package="mount")
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=16m,nr_inodes=200", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run([umount, "-R", str(place)], check=True)


def test_a_file_that_is_written_is_seen_with_its_writer_and_two_looks_show_its_growth(writer: tuple[int, Path]) -> None:
    pid, path = writer
    looks = []
    for _ in range(2):
        rows = {row["path"]: row for row in host().written_files().rows}
        looks.append(rows[str(path)])
    assert [row["pid"] for row in looks] == [pid, pid]
    assert looks[0]["bytes"] >= 400_000
    assert looks[1]["bytes"] > looks[0]["bytes"]
    assert "a growing.log" in looks[0]["command"]


def test_a_file_that_is_only_read_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "read.log"
    path.write_text("x")
    with path.open():
        assert str(path) not in {row["path"] for row in host().written_files().rows}


def test_files_of_others_that_are_hidden_are_said_to_be_hidden(writer: tuple[int, Path]) -> None:
    if os.geteuid() != 0:
        missing("root, to become nobody")
    setpriv = require_program("setpriv", package="util-linux")
    for text in ('host_open_files "$1" | host_written_files "$1"', 'host_open_files "$1" | host_deleted_files "$1"'):
        argv = shell.script_argv("as_nobody", shell.with_functions(text), ["/proc"])
        output = shell.execute([setpriv, "--reuid=65534", "--clear-groups", *argv], limit_seconds=15)
        found = shell.interpreted(output)
        assert "processes of other users are hidden" in found.partial
        assert str(writer[1]) not in {row.get("path") for row in found.value}


def test_places_are_told_by_their_kind_and_only_existing_ones(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "app.log").write_bytes(b"x" * 300_000)
    rows = host().places([str(tmp_path / "logs"), "/no/such/place"], [str(tmp_path)]).rows
    mine = {row["path"]: row for row in rows if str(tmp_path) in row["path"]}
    assert {path: row["kind"] for path, row in mine.items()} == {str(tmp_path / "logs"): "log", str(tmp_path): "tmp"}
    assert mine[str(tmp_path / "logs")]["bytes"] >= 300_000
    assert mine[str(tmp_path)]["complete"] == "yes"
    assert "/no/such/place" not in {row["path"] for row in rows}


def test_the_largest_file_comes_first_and_small_ones_are_left_out(tmp_path: Path) -> None:
    for name, size in (("small", 10), ("large", 900_000), ("larger", 1_900_000)):
        (tmp_path / name).write_bytes(b"x" * size)
    rows = host().large_files([str(tmp_path)]).rows
    assert [Path(row["path"]).name for row in rows] == ["larger", "large"]
    assert rows[0]["bytes"] >= 1_900_000
    assert host().large_files([]).rows == []


def test_directories_are_counted_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "sessions").mkdir()
    for number in range(30):
        (tmp_path / "sessions" / str(number)).touch()
    rows = host().many_files([str(tmp_path)]).rows
    assert (rows[0]["path"], rows[0]["files"]) == (str(tmp_path / "sessions"), 30)


def test_inodes_and_bytes_of_a_small_filesystem_are_its_own(small_disk: Path) -> None:
    (small_disk / "file").write_bytes(b"x" * 4_000_000)
    row = next(r for r in host().disk().rows if r["mount"] == str(small_disk))
    assert (row["type"], row["inodes"], row["inodes_used"]) == ("tmpfs", 200, 2)
    assert row["used_percent"] == pytest.approx(100 * 4_000_000 / (16 * 1024 * 1024), abs=1)
    assert row["read_only"] is False


@pytest.mark.parametrize("beneath", ["", "sessions", "no/such/path"])
def test_the_filesystem_that_holds_a_path_is_told_where_there_is_such_a_path(small_disk: Path, beneath: str) -> None:
    (small_disk / "sessions").mkdir()
    rows = host().disk(str(small_disk / beneath)).rows
    holding = [row["mount"] for row in rows if row["holds"]]
    assert holding == ([] if beneath == "no/such/path" else [str(small_disk)])
    assert len({row["mount"] for row in rows}) == len(rows)


def test_what_lies_below_a_mount_is_seen_and_the_host_keeps_its_mounts(small_disk: Path) -> None:
    below = small_disk / "media"
    below.mkdir()
    (below / "clip.mp4").write_bytes(b"x" * 3_000_000)
    mount = require_program("mount", package="mount")
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(below)], check=True)
    before = Path("/proc/mounts").read_text()
    rows = host().hidden_files([str(small_disk)]).rows
    assert [(row["mount"], row["path"]) for row in rows] == [(str(small_disk), str(below))]
    assert rows[0]["bytes"] >= 3_000_000
    assert Path("/proc/mounts").read_text() == before


def test_without_root_what_a_mount_hides_is_unknown_and_not_nothing(small_disk: Path) -> None:
    below = small_disk / "media"
    below.mkdir()
    mount, setpriv = require_program("mount", package="mount"), require_program("setpriv", package="util-linux")
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(below)], check=True)
    argv = shell.script_argv("x", shell.with_functions('host_hidden_files "$@"'), ["/proc", str(small_disk)])
    output = shell.execute([setpriv, "--reuid=65534", "--clear-groups", *argv], limit_seconds=15)
    rows = shell.interpreted(output).value
    assert [(row["path"], row["bytes"]) for row in rows] == [(str(below), "")]


def test_a_machine_without_lvm_has_no_volume_that_could_be_full() -> None:
    reading = host().volumes()
    assert reading.state == "ok"
    assert all(row["data_percent"] is None or row["data_percent"] >= 0 for row in reading.rows)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_data_in_every_look(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "reached"
    place = tmp_path / name.replace("{marker}", str(marker).replace("/", "_"))
    place.mkdir()
    (place / "file.log").write_bytes(b"x" * 200_000)
    os.utime(place / "file.log", (1e9, 1e9))
    paths = [str(place)]
    one = host()
    for reading in (one.large_files(paths), one.many_files(paths), one.log_files(paths), one.old_files(paths),
                    one.directories(paths), one.places(paths, [])):  # fmt: skip
        assert any(str(place) in row["path"] for row in reading.rows), reading.name
    assert one.disk(str(place)).known
    assert list(tmp_path.iterdir()) == [place]


def test_a_list_of_open_files_that_broke_off_is_not_taken_for_none() -> None:
    for text in ("host_written_files /proc", "host_deleted_files /proc", "host_log_files /proc /tmp"):
        argv = shell.script_argv("broken", shell.with_functions(f"true | {text}"))
        found = shell.interpreted(shell.execute(argv, limit_seconds=15))
        assert "could not be listed" in found.partial, text


def test_a_host_that_tells_no_filesystem_at_all_broke_off_and_has_none_that_is_known(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("")
    reading = Host(Context(), Workers(hosts=["local"]), proc=str(tmp_path)).disk()
    assert (reading.state, reading.known) == ("partial", False)

"""The statements and shell texts of the disk runbook, as they stand in the notebook."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from runbook import catalog
from runbook.connectors.base import Context
from runbook.connectors.shell import Shell
from runbook.result import Reading

HOSTILE = ("$(touch {marker})", "`touch {marker}`", "x'; touch {marker}; '", "-delete", "a b")


def ask(name: str, *arguments: str) -> Reading:
    """The reading of the notebook's ``%%sh`` cell of that name."""
    notebook = json.loads(catalog.load("high_disk_usage").path.read_text(encoding="utf-8"))
    cells = ("".join(one["source"]).partition("\n") for one in notebook["cells"] if one["cell_type"] == "code")
    body = next(body for head, _, body in cells if head.split()[:2] == ["%%sh", name])
    return Shell(Context()).script(name, body, list(arguments))


def test_errors_of_the_disk_are_counted_by_code_within_the_window(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text(
        "2026-03-01T03:00:00Z ERROR write /srv/tmp/x: ENOSPC: no space left on device\n"
        '2026-03-01T03:01:00Z ERROR could not extend file "base/1/2": No space left on device\n'
        "2026-03-01T03:02:00Z ERROR open: EROFS: read-only file system\n"
        "2026-03-01T03:03:00Z ERROR Disk quota exceeded\n"
        "2026-03-01T01:00:00Z ERROR ENOSPC of long ago\n"
        "2026-03-01T03:04:00Z INFO all is well\n"
    )
    rows = {row["code"]: row for row in ask("disk_errors", "2026-03-01T02:30:00+00:00", str(log)).rows}
    assert {code: row["count"] for code, row in rows.items()} == {"ENOSPC": 2, "EROFS": 1, "EDQUOT": 1}
    assert rows["ENOSPC"]["last"] == "2026-03-01T03:01:00"


def test_without_a_log_no_error_is_claimed_to_be_absent(tmp_path: Path) -> None:
    assert ask("disk_errors", "2026-03-01T02:30:00").state == "not_configured"
    assert ask("disk_errors", "2026-03-01T02:30:00", str(tmp_path / "none")).state == "partial"


def test_the_servers_files_are_placed_and_a_linked_wal_is_placed_where_it_lies(tmp_path: Path) -> None:
    data, wal = tmp_path / "data", tmp_path / "elsewhere"
    for place in (data, wal):
        place.mkdir()
    (data / "PG_VERSION").write_text("16\n")
    (data / "pg_wal").symlink_to(wal)
    rows = {row["role"]: row for row in ask("database_files", str(data), "0").rows}
    assert (rows["data"]["path"], rows["wal"]["path"]) == (str(data), str(wal))
    assert all(str(tmp_path).startswith(row["mount"]) and row["used_kb"] > 0 for row in rows.values())


@pytest.mark.parametrize("made", [False, True])
def test_a_server_in_a_container_is_not_taken_to_lie_on_this_host(tmp_path: Path, made: bool) -> None:
    data = tmp_path / "data"
    if made:
        data.mkdir()  # of the same name, and no database in it
    reading = ask("database_files", str(data), "0")
    assert (reading.state, reading.rows) == ("not_configured", [])


def test_a_server_is_found_by_where_its_processes_stand(tmp_path: Path) -> None:
    data = tmp_path / "hidden"
    (data / "pg_wal").mkdir(parents=True)
    (data / "PG_VERSION").write_text("16\n")
    with subprocess.Popen(["/bin/sleep", "60"], cwd=data) as process:
        try:
            rows = ask("database_files", "/proc/self/fd/6", str(process.pid)).rows
        finally:
            process.kill()
    assert {row["role"]: row["path"] for row in rows} == {"data": str(data), "wal": str(data / "pg_wal")}


def test_a_process_of_another_kind_with_that_number_is_not_taken_for_the_server(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"], cwd=tmp_path) as process:
        try:
            assert ask("database_files", str(tmp_path / "none"), str(process.pid)).state == "not_configured"
        finally:
            process.kill()


def test_an_unknown_directory_is_not_configured() -> None:
    assert ask("database_files", "", "0").state == "not_configured"


def test_patterns_of_logrotate_are_read_and_its_commands_are_not() -> None:
    reading = ask("log_rotation")
    if reading.state == "not_configured":
        assert "logrotate" in reading.reason
        return
    assert all(row["pattern"].startswith("/") for row in reading.rows)


@pytest.mark.parametrize("name", HOSTILE)
def test_media_on_a_local_disk_is_counted_by_directory_and_a_name_is_data(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "reached"
    place = tmp_path / name.replace("{marker}", "reached")
    place.mkdir()
    (place / "clip.MP4").write_bytes(b"x" * 100_000)
    (place / "notes.txt").write_text("x")
    rows = ask("local_uploads", str(place)).rows
    assert [(row["directory"], row["files"]) for row in rows] == [(str(place), 1)]
    assert rows[0]["bytes"] >= 100_000
    assert not marker.exists()
    assert sorted(path.name for path in place.iterdir()) == ["clip.MP4", "notes.txt"]

"""The statements and shell texts of the upload runbook, as they stand in the notebook, on a server and in a shell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbook import catalog
from runbook.connectors.base import Context
from runbook.connectors.postgres import Postgres
from runbook.connectors.shell import Shell
from runbook.embedded import FAST, EmbeddedPostgres
from runbook.result import Reading

HOSTILE = ("'; drop table content; --", "$(touch {marker})", "`touch {marker}`", "-e x", "--", "%s", 'a"b\\')
_TABLE = """CREATE TYPE state AS ENUM ('UPLOADING', 'PROCESSING', 'PENDING_REVIEW', 'READY', 'FAILED');
CREATE TABLE content (id text PRIMARY KEY, "creatorId" text NOT NULL, title text NOT NULL, status state NOT NULL,
  "mediaUrl" text, "muxAssetId" text, "createdAt" timestamp(3) NOT NULL, "updatedAt" timestamp(3) NOT NULL)"""
_ROW = """INSERT INTO content VALUES (%s, %s, 'A title', %s, NULL, %s,
  timezone('UTC', now()) - %s * interval '1 min', timezone('UTC', now()) - %s * interval '1 min')"""


def cell(name: str) -> str:
    """The body of the notebook's cell that binds this name."""
    notebook = json.loads(catalog.load("video_upload_failures").path.read_text(encoding="utf-8"))
    for one in notebook["cells"]:
        head, _, body = "".join(one["source"]).partition("\n")
        if one["cell_type"] == "code" and head.split()[1:2] == [name] and head.startswith("%%"):
            return body
    raise LookupError(name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "s", settings=FAST) as made:
        with psycopg.connect(made.superuser_dsn, autocommit=True) as conn:
            conn.execute("CREATE ROLE monitor LOGIN PASSWORD 'Canary-0a1b2c3d'; GRANT pg_monitor TO monitor")
            conn.execute(_TABLE)  # type: ignore[arg-type]
            conn.execute("GRANT SELECT ON content TO monitor")
            # A session elsewhere in the world must not move the window: Prisma's times are UTC.
            conn.execute("ALTER ROLE monitor SET TimeZone = 'America/Los_Angeles'")
        yield made


class Uploads:
    """Rows of ``content``, and the notebook's statements on them."""

    def __init__(self, server: EmbeddedPostgres, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        self._postgres = Postgres(Context(), server.dsn(user="monitor", password="Canary-0a1b2c3d"), None)
        self._count = 0

    def add(self, status: str, *, age: float, moved: float | None = None, creator: str = "c1", asset: str = "") -> str:
        """One upload, so many minutes old, that has not moved for ``moved`` minutes."""
        self._count += 1
        identity = f"upload-{self._count:05d}"
        self._conn.execute(_ROW, (identity, creator, status, asset or None, age, age if moved is None else moved))
        return identity

    def ask(self, name: str, **more: Any) -> Reading:
        since = (datetime.now(UTC) - timedelta(minutes=60)).isoformat(timespec="seconds")
        values = {"since": since, "stuck_after_minutes": 60.0, "user_id": ""} | more
        reading = self._postgres.query(name, cell(name), values)
        assert reading.state == "ok", reading.reason
        return reading

    def close(self) -> None:
        self._postgres.close()


@pytest.fixture
def uploads(server: EmbeddedPostgres) -> Iterator[Uploads]:
    with psycopg.connect(server.superuser_dsn, autocommit=True) as conn:
        conn.execute("TRUNCATE content")
        made = Uploads(server, conn)
        yield made
        made.close()


def overview(uploads: Uploads) -> dict[str, dict[str, Any]]:
    return {row["status"]: row for row in uploads.ask("content_overview").rows}


def test_an_upload_is_stuck_when_it_became_so_within_the_window(uploads: Uploads) -> None:
    uploads.add("PROCESSING", age=95)
    uploads.add("PROCESSING", age=30)
    uploads.add("PROCESSING", age=60 * 24 * 20)
    row = overview(uploads)["PROCESSING"]
    assert (row["stuck"], row["under_way"]) == (1, 1)


def test_an_old_upload_that_failed_just_now_is_bad_and_one_that_failed_yesterday_is_not(uploads: Uploads) -> None:
    uploads.add("FAILED", age=300, moved=5)
    uploads.add("FAILED", age=60 * 20)
    uploads.add("READY", age=10)
    rows = overview(uploads)
    assert (rows["FAILED"]["failed"], rows["FAILED"]["uploads"], rows["READY"]["failed"]) == (1, 1, 0)


def test_what_waits_for_a_person_is_not_stuck(uploads: Uploads) -> None:
    uploads.add("PENDING_REVIEW", age=50)
    row = overview(uploads)["PENDING_REVIEW"]
    assert (row["stuck"], row["under_way"], row["failed"]) == (0, 0, 0)


def test_creators_are_counted_by_the_same_rule_as_the_whole(uploads: Uploads) -> None:
    for _ in range(3):
        uploads.add("FAILED", age=10, creator="one")
    uploads.add("PROCESSING", age=95, creator="two")
    uploads.add("READY", age=10, creator="three")
    rows = {row["creator_id"]: row for row in uploads.ask("content_by_creator").rows}
    assert (rows["one"]["failed"], rows["one"]["share_of_bad"], rows["one"]["creators_hit"]) == (3, 75.0, 2)
    assert (rows["two"]["stuck"], rows["three"]["bad_percent"]) == (1, 0.0)


def test_stuck_rows_carry_what_they_hold_of_the_provider_and_say_whether_they_are_old(uploads: Uploads) -> None:
    new = uploads.add("PROCESSING", age=95, asset="SqQnqz6s5MBuXGvJaUWdXuXM")
    old = uploads.add("UPLOADING", age=60 * 24 * 5)
    rows = uploads.ask("stuck_rows").rows
    assert [(row["id"], row["in_window"]) for row in rows] == [(new, True), (old, False)]
    assert rows[0]["provider_ids"] == ["SqQnqz6s5MBuXGvJaUWdXuXM"]


def test_history_and_onset_tell_failures_from_work_in_progress(uploads: Uploads) -> None:
    uploads.add("FAILED", age=60 * 30)
    uploads.add("FAILED", age=2)
    uploads.add("UPLOADING", age=2)
    assert [(row["total"], row["failed"]) for row in uploads.ask("content_history").rows] == [(1, 1)]
    onset = uploads.ask("content_onset").rows
    assert (sum(r["failed"] for r in onset), sum(r["in_progress"] for r in onset)) == (1, 1)


def test_the_states_that_the_application_knows_are_read_from_its_type(uploads: Uploads) -> None:
    labels = [row["label"] for row in uploads.ask("content_states").rows]
    assert labels == ["UPLOADING", "PROCESSING", "PENDING_REVIEW", "READY", "FAILED"]


@pytest.mark.parametrize("user", HOSTILE)
def test_a_user_is_data_in_sql_whatever_it_is_called(uploads: Uploads, user: str) -> None:
    mine = uploads.add("PROCESSING", age=5, creator=user)
    uploads.add("PROCESSING", age=5, creator="somebody else")
    assert [row["id"] for row in uploads.ask("user_uploads", user_id=user).rows] == [mine]


@pytest.mark.parametrize("user", HOSTILE)
def test_a_user_is_data_in_the_shell_whatever_it_is_called(user: str, tmp_path: Path) -> None:
    marker = tmp_path / "reached"
    user = user.replace("{marker}", str(marker))
    log = tmp_path / "app.log"
    log.write_text(f"2026-03-01T03:00:00Z INFO upload begun by {user}\n2026-03-01T03:00:01Z INFO somebody else\n")
    reading = Shell(Context()).script("user_log", cell("user_log"), [user, str(log)])
    assert reading.state == "ok", reading.reason
    assert [user in row["line"] for row in reading.rows] == [True]
    assert not marker.exists()


def test_without_a_user_no_line_of_the_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("anything\n")
    assert Shell(Context()).script("user_log", cell("user_log"), ["", str(log)]).rows == []


def test_errors_of_uploads_are_counted_by_kind_within_the_window(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text(
        "2026-03-01T03:00:00Z ERROR upload 1 failed in the browser: 403 AccessDenied\n"
        "2026-03-01T03:05:00Z ERROR upload 2 failed in the browser: 403 AccessDenied\n"
        "2026-03-01 03:06:00 ERROR PayloadTooLarge: file of 90 bytes exceeds the limit of 52428800 bytes\n"
        "2026-03-01T03:07:00Z ERROR job 7 failed: [Errno 28] No space left on device\n"
        "2026-03-01T03:08:00Z ERROR row of upload-1 was not written: the statement was not sent\n"
        "2026-03-01T01:00:00Z ERROR ENOSPC of the hour before\n"
        "2026-03-01T03:09:00Z INFO all is well\n"
    )
    arguments = ["2026-03-01T02:30:00+00:00", str(log)]
    rows = {row["pattern"]: row for row in Shell(Context()).script("app_errors", cell("app_errors"), arguments).rows}
    assert {kind: row["count"] for kind, row in rows.items()} == {
        "AccessDenied": 2, "payload too large": 1, "ENOSPC": 1, "row not written": 1,
    }  # fmt: skip
    assert rows["AccessDenied"]["last"] == "2026-03-01T03:05:00"
    assert "52428800" in rows["payload too large"]["sample"]


def test_a_log_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    reading = Shell(Context()).script(
        "app_errors", cell("app_errors"), ["2026-03-01T02:30:00", str(tmp_path / "no.log")]
    )
    assert reading.state == "partial"
    assert "no.log" in reading.reason


def test_disks_are_listed_once_each_with_their_inodes(tmp_path: Path) -> None:
    rows = Shell(Context()).script("worker_disk", cell("worker_disk"), [str(tmp_path), str(tmp_path), "/nowhere"]).rows
    mounts = [row["mount"] for row in rows]
    assert len(mounts) == len(set(mounts)) > 0
    assert all(0 <= row["used_percent"] <= 100 and row["size_kb"] > 0 for row in rows)


def test_processes_are_found_by_their_pattern_and_the_search_is_none() -> None:
    rows = Shell(Context()).script("worker_processes", cell("worker_processes"), ["pytest"]).rows
    assert rows
    assert not any("worker_processes" in row["command"] for row in rows)
    nothing = Shell(Context()).script("worker_processes", cell("worker_processes"), [""])
    assert (nothing.state, nothing.reason) == ("not_configured", "workers.process_pattern is not set")


def test_the_restart_is_read_word_by_word() -> None:
    rows = Shell(Context()).script("worker_restart", cell("worker_restart"), ["systemctl", "restart", "a unit"]).rows
    assert [row["word"] for row in rows] == ["systemctl", "restart", "a unit"]

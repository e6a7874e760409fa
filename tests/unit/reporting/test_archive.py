from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from runbook.errors import ArchiveError, ConfigurationError, NotFound
from runbook.reporting import archive as module
from runbook.reporting.archive import ABANDONED_AFTER_SECONDS, Archive, open_archive, write_flat
from runbook.settings import from_plain

STARTED = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
FILES = {"report.html": b"<p>", "notebook.ipynb": b"{}", "result.json": b"{}", "readings.jsonl.gz": b"\x1f\x8b"}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def visible(archive: Archive) -> list[str]:
    return sorted(p.relative_to(archive.directory).as_posix() for p in archive.directory.rglob("*") if p.is_file())


def test_files_of_a_run_are_kept_by_day_and_run(archive: Archive) -> None:
    directory = archive.write("run-1", STARTED, FILES)
    assert directory == str(archive.directory / "2026" / "03" / "01" / "run-1")
    assert {name: archive.read("run-1", STARTED, name) for name in FILES} == FILES


def test_day_is_the_utc_day(archive: Archive) -> None:
    local = STARTED.astimezone(timezone(timedelta(hours=2)))
    assert local.day == 2
    assert archive.path("r", local) == archive.path("r", STARTED)


def test_everything_is_for_our_user_alone_whatever_the_umask(archive: Archive) -> None:
    before = os.umask(0)
    try:
        archive.write("run-1", STARTED, FILES)
    finally:
        os.umask(before)
    for path in (archive.directory, *archive.directory.rglob("*")):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_writing_a_run_again_replaces_all_of_it(archive: Archive) -> None:
    archive.write("run-1", STARTED, FILES)
    archive.write("run-1", STARTED, {"report.html": b"second"})
    assert visible(archive) == ["2026/03/01/run-1/report.html"]
    assert archive.read("run-1", STARTED, "report.html") == b"second"


def test_reader_sees_all_files_or_none_while_they_are_written(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    write = module._write_file

    def watched(path: Path, content: bytes) -> None:
        write(path, content)
        directory = archive.path("run-1", STARTED)
        seen.append(sorted(p.name for p in directory.iterdir()) if directory.exists() else [])

    monkeypatch.setattr(module, "_write_file", watched)
    archive.write("run-1", STARTED, FILES)
    assert seen == [[]] * len(FILES)
    assert len(visible(archive)) == len(FILES)


def test_failure_in_the_middle_leaves_nothing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    write = module._write_file

    def full(path: Path, content: bytes) -> None:
        if path.name == "result.json":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(module, "_write_file", full)
    with pytest.raises(ArchiveError, match="No space left on device"):
        archive.write("run-1", STARTED, FILES)
    assert visible(archive) == []


def test_killed_writer_leaves_nothing_that_can_be_read_and_is_swept_up_later(archive: Archive) -> None:
    program = """
        import os, signal, sys
        from datetime import datetime, UTC
        from pathlib import Path
        from runbook.reporting import archive as module
        write = module._write_file
        def dying(path, content):
            write(path, content)
            if path.name == "result.json":
                os.kill(os.getpid(), signal.SIGKILL)
        module._write_file = dying
        files = {"report.html": b"x", "result.json": b"y", "notebook.ipynb": b"z"}
        module.Archive(Path(sys.argv[1])).write("run-1", datetime(2026, 3, 1, tzinfo=UTC), files)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(archive.directory)]
    assert subprocess.run(command, check=False).returncode == -9
    with pytest.raises(NotFound):
        archive.read("run-1", STARTED, "report.html")
    day = archive.path("run-1", STARTED).parent
    (left,) = day.iterdir()
    assert left.name.startswith(".")
    archive.write("run-2", STARTED, FILES)
    assert left.exists()
    old = time.time() - ABANDONED_AFTER_SECONDS - 1
    os.utime(left, (old, old))
    archive.write("run-3", STARTED, FILES)
    assert sorted(p.name for p in day.iterdir()) == ["run-2", "run-3"]


def test_many_writers_at_once_all_succeed(archive: Archive) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: archive.write(f"run-{n}", STARTED, FILES), range(40)))
    assert len(visible(archive)) == 40 * len(FILES)


def test_writers_of_the_same_run_never_mix_their_files(archive: Archive) -> None:
    stop = threading.Event()
    mixed: list[object] = []

    def read() -> None:
        while not stop.is_set():
            try:
                directory = os.open(archive.path("run-1", STARTED), os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                contents = {Path(f"/proc/self/fd/{directory}/{n}").read_bytes() for n in ("report.html", "result.json")}
                if len(contents) != 1:
                    mixed.append(contents)
            except FileNotFoundError:
                pass  # replaced while it was read
            finally:
                os.close(directory)

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(6) as pool:
        files = [{"report.html": b"%d" % n, "result.json": b"%d" % n} for n in range(60)]
        list(pool.map(lambda f: archive.write("run-1", STARTED, f), files))
    stop.set()
    reader.join()
    assert mixed == []
    assert visible(archive) == ["2026/03/01/run-1/report.html", "2026/03/01/run-1/result.json"]


@pytest.mark.parametrize(
    "run_id", ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "a b", "a\n", "a\0", "-x", "x" * 129, "a.b", "é", "~"]
)
def test_run_id_that_is_no_plain_name_is_refused(archive: Archive, run_id: str) -> None:
    for act in (
        lambda: archive.write(run_id, STARTED, FILES),
        lambda: archive.read(run_id, STARTED, "report.html"),
        lambda: archive.path(run_id, STARTED),
    ):
        with pytest.raises(ArchiveError):
            act()
    assert not archive.directory.exists()


@pytest.mark.parametrize("name", ["", "..", "../report.html", "a/b", ".partial-x", "/etc/passwd", "x\0", "a\n"])
def test_file_name_that_is_no_plain_name_is_refused(archive: Archive, name: str, tmp_path: Path) -> None:
    archive.write("run-1", STARTED, FILES)
    for act in (
        lambda: archive.read("run-1", STARTED, name),
        lambda: archive.write("run-2", STARTED, {name: b""}),
        lambda: write_flat(tmp_path / "out", {name: b""}),
    ):
        with pytest.raises(ArchiveError):
            act()


def test_missing_run_and_missing_file_are_not_found(archive: Archive) -> None:
    with pytest.raises(NotFound, match="run-9"):
        archive.read("run-9", STARTED, "report.html")
    archive.write("run-1", STARTED, {"report.html": b""})
    with pytest.raises(NotFound, match=r"result\.json"):
        archive.read("run-1", STARTED, "result.json")


def test_unwritable_archive_is_one_line_with_the_directory_and_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    blocked = Archive(tmp_path / "file" / "archive")
    for act in (blocked.check, lambda: blocked.write("run-1", STARTED, FILES)):
        with pytest.raises(ArchiveError) as raised:
            act()
        assert "\n" not in str(raised.value)
        assert str(tmp_path / "file") in str(raised.value)
        assert "archive.url" in str(raised.value)


def test_check_leaves_nothing_behind(archive: Archive) -> None:
    archive.check()
    assert list(archive.directory.iterdir()) == []


def test_file_url_names_the_directory(tmp_path: Path) -> None:
    for url in (f"file:{tmp_path}/a%20b", f"file://{tmp_path}/a%20b", f"file://localhost{tmp_path}/a%20b"):
        assert open_archive(from_plain({"archive": {"url": url}})).directory == tmp_path / "a b"


def test_without_a_url_the_archive_is_in_the_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_DATA_DIR", str(tmp_path))
    assert open_archive(from_plain({})).directory == tmp_path / "archive"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://bucket/prefix", "not available yet"),
        ("file:relative/path", "absolute path"),
        ("file://otherhost/path", "absolute path"),
        ("/just/a/path", "file:/path"),
        ("https://example.org/x", "file:/path"),
        ("file:/a%00b", "file:/path"),
    ],
)
def test_other_urls_are_refused_with_a_remedy(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        open_archive(from_plain({"archive": {"url": url}}))


def test_flat_writing_puts_the_files_into_the_directory_and_replaces_older_ones(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    write_flat(out, FILES)
    write_flat(out, {"report.html": b"second"})
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    assert (out / "report.html").read_bytes() == b"second"
    assert mode(out / "report.html") == 0o600


def test_flat_writing_leaves_a_directory_of_the_user_as_open_as_it_was(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    write_flat(tmp_path, FILES)
    assert mode(tmp_path) == 0o755


def test_flat_writing_where_it_cannot_is_an_archive_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArchiveError, match="file"):
        write_flat(tmp_path / "file", FILES)

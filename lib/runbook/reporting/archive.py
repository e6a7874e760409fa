"""The archive of reports: one directory for each run, complete or not there at all.

A run's files are written into a hidden directory beside the final one, flushed to disk and then renamed, so that a
reader never meets half a report and a crash leaves nothing that looks like one. Run ids become path components here,
so they are checked here; nothing from an alert ever becomes part of a path.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog

from runbook.errors import ArchiveError, ConfigurationError, NotFound
from runbook.settings import Settings, data_dir

REPORT, NOTEBOOK, RESULT, READINGS = "report.html", "notebook.ipynb", "result.json", "readings.jsonl.gz"
"""Names of the four files of a run."""

FILES = (REPORT, NOTEBOOK, RESULT, READINGS)

ABANDONED_AFTER_SECONDS = 3600.0
"""A hidden directory older than this belongs to a writer that is gone: writing takes well under a second."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PARTIAL = ".partial-"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Archive:
    """Reports under one directory: ``<yyyy>/<mm>/<dd>/<run_id>/``, days in UTC."""

    directory: Path

    def write(self, run_id: str, started_at: datetime, files: Mapping[str, bytes]) -> str:
        """Keep a run's files, all of them or none; a run that is written again replaces what was there.

        Returns
        -------
        str
            The run's directory.

        Raises
        ------
        ArchiveError
            The run id or a file name is no plain name, or the directory cannot be written.
        """
        final = self.path(run_id, started_at)
        _check_names(files)
        try:
            _make_private(final.parent, self.directory)
            _sweep(final.parent)
            _replace(final, files)
        except OSError as error:
            raise _unwritable(final.parent, error) from None
        return str(final)

    def read(self, run_id: str, started_at: datetime, name: str) -> bytes:
        """One file of a run.

        Raises
        ------
        NotFound
            There is no such run, or it has no such file.
        ArchiveError
            It is there and cannot be read.
        """
        path = self.path(run_id, started_at, name)
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"the archive has no {name} of run {run_id}", remedy="runbook reports lists them") from None
        except OSError as error:
            raise ArchiveError(
                f"archived file {path} cannot be read ({error.strerror})", remedy="Check its owner and permissions"
            ) from None

    def path(self, run_id: str, started_at: datetime, name: str | None = None) -> Path:
        """Where a run's directory, or one file of it, is kept, whether or not it is there yet."""
        if not _RUN_ID.fullmatch(run_id):
            raise ArchiveError(f"run id {run_id[:60]!r} is not letters, digits, - and _")
        day = started_at if started_at.tzinfo is None else started_at.astimezone(UTC)
        directory = self.directory / f"{day:%Y}" / f"{day:%m}" / f"{day:%d}" / run_id
        if name is None:
            return directory
        _check_names((name,))
        return directory / name

    def find(self, run_id: str) -> Path | None:
        """The directory of a run of which only the id is known; ``None`` when there is none.

        Raises
        ------
        ArchiveError
            The run id is no plain name.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise ArchiveError(f"run id {run_id[:60]!r} is not letters, digits, - and _")
        return next(self.directory.glob(f"[0-9]*/[0-9]*/[0-9]*/{run_id}"), None)

    def check(self) -> None:
        """Write and remove a file, so that an archive that cannot be written is known before a run needs it.

        Raises
        ------
        ArchiveError
            It cannot be written; names the directory and the remedy.
        """
        probe = self.directory / f"{_PARTIAL}{secrets.token_hex(8)}"
        try:
            _make_private(self.directory, self.directory)
            _write_file(probe, b"")
            probe.unlink()
        except OSError as error:
            raise _unwritable(self.directory, error) from None


def open_archive(settings: Settings) -> Archive:
    """The archive of ``archive.url``, or the one under the data directory.

    Raises
    ------
    ConfigurationError
        The URL is not ``file:`` with an absolute path on this machine.
    """
    url = settings.archive.url
    if not url:
        return Archive(data_dir() / "archive")
    parts = urlsplit(url)
    if parts.scheme == "s3":
        raise ConfigurationError(
            "archive.url names an s3: archive, which is not available yet", remedy="Use a file: URL, or leave it empty"
        )
    path = unquote(parts.path)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise ConfigurationError(
            f"archive.url {url!r} cannot be used", remedy="Write it as file:/path, with an absolute path"
        )
    return Archive(Path(path))


def write_flat(directory: Path, files: Mapping[str, bytes]) -> None:
    """Put a run's files straight into ``directory`` (``--output``); each one appears whole.

    Raises
    ------
    ArchiveError
        The directory cannot be made or written.
    """
    _check_names(files)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            partial = directory / f"{_PARTIAL}{secrets.token_hex(8)}"
            try:
                _write_file(partial, content)
                partial.replace(directory / name)
            finally:
                partial.unlink(missing_ok=True)
        _flush_directory(directory)
    except OSError as error:
        raise _unwritable(directory, error) from None


def _check_names(names: Mapping[str, bytes] | tuple[str, ...]) -> None:
    for name in names:
        if not _FILE_NAME.fullmatch(name):
            raise ArchiveError(f"file name {name[:60]!r} is not letters, digits, dots, - and _")


def _unwritable(directory: Path, error: OSError) -> ArchiveError:
    return ArchiveError(
        f"archive directory {directory} cannot be written ({error.strerror or error})",
        remedy="Make it writable for this user, free some space, or name another one in archive.url",
    )


def _make_private(directory: Path, root: Path) -> None:
    """Make ``directory`` and what it lacks above it, from ``root`` down for our user alone."""
    missing = [d for d in (directory, *directory.parents) if not d.exists()]
    for new in reversed(missing):
        inside = new == root or root in new.parents
        new.mkdir(mode=0o700 if inside else 0o755, exist_ok=True)


def _replace(final: Path, files: Mapping[str, bytes]) -> None:
    partial = final.parent / f"{_PARTIAL}{final.name}-{secrets.token_hex(8)}"
    try:
        partial.mkdir(mode=0o700)
        for name, content in files.items():
            _write_file(partial / name, content)
        _flush_directory(partial)
        _move_into_place(partial, final)
        _flush_directory(final.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move_into_place(partial: Path, final: Path) -> None:
    """Rename over ``final``. A directory with files in it cannot be renamed over, so an older one steps aside first.

    Two writers of one run may each move the other's result aside; whichever renames last wins, and both are whole.
    """
    for _ in range(100):
        try:
            partial.rename(final)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        aside = final.parent / f"{_PARTIAL}{final.name}-{secrets.token_hex(8)}"
        try:
            final.rename(aside)
        except FileNotFoundError:
            continue
        shutil.rmtree(aside, ignore_errors=True)
    raise OSError(f"{final.name} is being replaced over and over")


def _write_file(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(day: Path) -> None:
    """Remove what crashed writers left in ``day``; never the work of one that is still writing."""
    oldest = time.time() - ABANDONED_AFTER_SECONDS
    for entry in day.glob(f"{_PARTIAL}*"):
        try:
            abandoned = entry.lstat().st_mtime < oldest
        except FileNotFoundError:
            continue
        if abandoned:
            _log.info("removing an unfinished report", path=str(entry))
            shutil.rmtree(entry, ignore_errors=True)

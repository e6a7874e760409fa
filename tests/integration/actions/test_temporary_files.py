"""What deletes files on real hosts, here and over SSH: what was left over, and nothing that changed or is in use."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runbook.actions.plan import Order, Refused
from tests.integration.actions.desk import ME, Desk, order
from tests.integration.actions.hosts import home, host, sshd

__all__ = ["home", "host", "sshd"]

DELETE = "files.delete_temporary"
OLD = 2 * 86400


@pytest.fixture
def tmp(tmp_path: Path) -> Path:
    """The directory that ``workers.tmp_paths`` allows."""
    directory = tmp_path.resolve() / "tmp"
    directory.mkdir()
    return directory


@pytest.fixture
def desk(tmp: Path, host: str, database: str, data: Path) -> Desk:
    return Desk({"workers": {"hosts": [host], "tmp_paths": [str(tmp)]}, "store": {"url": database}})


def left_over(directory: Path, name: str = "upload-1.part", size: int = 4096) -> Path:
    path = directory / name
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - OLD, time.time() - OLD))
    return path


def seen(path: Path, host: str) -> dict[str, Any]:
    """A file as a run names it."""
    written = datetime.fromtimestamp(path.lstat().st_mtime, UTC)
    return {"host": host, "path": str(path), "bytes": 4096, "modified_at": written.isoformat(timespec="seconds")}


def refused(desk: Desk, asked: Order, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        desk.do(lambda desk: desk.acting.plan(asked, ME))


NAMES = ["upload-1.part", "a b'c\"d $(touch x) `x`.part", "-rf", "*", "é.part", "%s"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_was_left_over_is_deleted_and_nothing_else(desk: Desk, tmp: Path, host: str, name: str) -> None:
    path, other = left_over(tmp, name), left_over(tmp, "other.part")
    asked = order(DELETE, [seen(path, host)])
    desk.symptom = lambda: float(path.exists())

    async def steps(desk: Desk) -> Any:
        effects = await desk.applied(asked)
        with pytest.raises(Refused, match="cannot be undone"):
            await desk.acting.undo(asked, ME)
        return effects, await desk.acting.verify(asked, ME)

    (effect,), verified = desk.do(steps)
    assert (effect.done, verified["verdict"], verified["holds"]) == (True, "fixed", True)
    assert list(tmp.iterdir()) == [other]


def _written(path: Path) -> None:
    path.write_bytes(b"y" * 4096)


def _longer(path: Path) -> None:
    at = path.stat().st_mtime
    path.write_bytes(b"y" * 5000)
    os.utime(path, (at, at))


def _another(path: Path) -> None:
    at = path.stat().st_mtime
    fresh = path.with_name("fresh")
    fresh.write_bytes(b"z" * 4096)
    os.utime(fresh, (at, at))
    fresh.replace(path)


def _linked(path: Path) -> None:
    kept = path.parent.parent / "kept"
    path.rename(kept)
    path.symlink_to(kept)


def _named_twice(path: Path) -> None:
    os.link(path, path.with_name("second"))


def _moved_directory(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.parent.rename(elsewhere)
    path.parent.symlink_to(elsewhere)


CHANGES = [_written, _longer, _another, _linked, _named_twice, _moved_directory]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_a_file_that_changed_between_plan_and_apply_is_left_alone(
    desk: Desk, tmp: Path, host: str, change: Callable[[Path], None]
) -> None:
    below = tmp / "jobs"
    below.mkdir()
    path = left_over(below)
    asked = order(DELETE, [seen(path, host)])

    async def steps(desk: Desk) -> Any:
        await desk.approved(asked)
        change(path)
        return await desk.acting.apply(asked, ME), await desk.events(asked)

    (effect,), events = desk.do(steps)
    assert (effect.done, events[-1]) == (False, "refused")
    assert path.exists()


@contextlib.contextmanager
def only_mapped(path: Path) -> Iterator[None]:
    """A process that has mapped the file, and closed it again."""
    script = (
        "import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "libc.mmap(None, ctypes.c_size_t(4096), 1, 1, fd, ctypes.c_long(0)); os.close(fd)\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", script, str(path)]
    holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    try:
        yield
    finally:
        holder.communicate()


def test_a_file_that_somebody_has_open_or_mapped_is_left_alone(desk: Desk, tmp: Path, host: str) -> None:
    open_one, mapped = left_over(tmp, "open.part"), left_over(tmp, "mapped.part")
    asked = order(DELETE, [seen(open_one, host), seen(mapped, host)])

    async def steps(desk: Desk) -> Any:
        await desk.approved(asked)
        with open_one.open("rb"), only_mapped(mapped):
            return await desk.acting.apply(asked, ME)

    effects = desk.do(steps)
    assert [effect.done for effect in effects] == [False, False]
    assert ["open" in effects[0].said, "mapped" in effects[1].said] == [True, True]
    assert [path.exists() for path in (open_one, mapped)] == [True, True]


def test_a_file_that_is_open_by_another_name_of_its_mount_is_not_planned(desk: Desk, tmp: Path, host: str) -> None:
    """As a container has it: the path that the holder shows is another one, the file is not."""
    path = left_over(tmp)
    script = 'mount --bind "$1" /mnt && exec 9< /mnt/upload-1.part && echo ready && exec sleep 60'
    holder = subprocess.Popen(["unshare", "-m", "sh", "-c", script, "sh", str(tmp)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"ready\n":
            pytest.skip("needs mount namespaces")
        refused(desk, order(DELETE, [seen(path, host)]), "a process has it open")
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({"path": "/etc/hostname"}, "no directory of workers.tmp_paths"),
        ({"path": "{tmp}/../outside"}, "no directory of workers.tmp_paths"),
        ({"path": "{tmp}"}, "no directory of workers.tmp_paths"),
        ({"path": "{tmp}-other/x"}, "no directory of workers.tmp_paths"),
        ({"path": "{tmp}/a\nb"}, "no directory of workers.tmp_paths"),
        ({"path": "{tmp}/gone"}, "it is gone"),
        ({"host": "elsewhere"}, "none of workers.hosts"),
        ({"modified_at": "2026-01-01T00:00:00+00:00"}, "written since"),
        ({"modified_at": None}, "did not tell"),
    ],
)
def test_what_is_not_allowed_is_not_planned(
    desk: Desk, tmp: Path, host: str, target: dict[str, Any], reason: str
) -> None:
    path = left_over(tmp)
    (tmp.parent / "outside").write_text("x")
    changed = {key: value.replace("{tmp}", str(tmp)) if value else value for key, value in target.items()}
    refused(desk, order(DELETE, [seen(path, host) | changed]), reason)
    assert path.exists()


def test_links_directories_and_pipes_are_not_planned(desk: Desk, tmp: Path, host: str) -> None:
    target = left_over(tmp.parent, "kept")
    (tmp / "link").symlink_to(target)
    (tmp / "directory").mkdir()
    os.mkfifo(tmp / "pipe")
    (tmp / "way").symlink_to(tmp.parent)
    paths = [tmp / "link", tmp / "directory", tmp / "pipe", tmp / "way" / "kept"]
    refused(desk, order(DELETE, [seen(path, host) for path in paths]),
            "it is a link.*no regular file.*no regular file.*a link leads there")  # fmt: skip
    assert target.exists()


def test_where_open_files_are_hidden_nothing_is_deleted(tmp: Path) -> None:
    """As anybody but root sees it."""
    from runbook.connectors import shell

    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    path = left_over(tmp)
    ours = [directory for directory in (tmp, *tmp.parents) if directory.is_relative_to(tempfile.gettempdir())][:-1]
    for directory in ours:
        directory.chmod(0o777)
    text = shell.with_functions('host_temporary_file "$@"')
    command = ["sh", "-u", "-c", text, "act", "/proc", str(tmp), str(path)]
    script = f"exec setpriv --reuid 65534 --regid 65534 --clear-groups {shlex.join(command)}"
    out = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert "of other users are hidden" in out


def test_eleven_files_are_too_many(desk: Desk, tmp: Path, host: str) -> None:
    paths = [left_over(tmp, f"{n}.part") for n in range(11)]
    refused(desk, order(DELETE, [seen(path, host) for path in paths]), "11 targets are too many")
    assert all(path.exists() for path in paths)


def test_the_functions_are_plain_posix_shell() -> None:
    from tests.support import require_program

    files = Path(__file__).parents[3] / "lib/runbook/connectors/sh"
    for name in ("host_temporary_file", "host_worker"):
        subprocess.run([require_program("dash", package="dash"), "-n", str(files / f"{name}.sh")], check=True)

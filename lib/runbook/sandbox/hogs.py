"""Processes of the faults that use memory or processors: one that leaks, many, files in memory, page cache, one that is
killed, one that computes without end.

Each joins the cgroup that it is given before it takes anything, so that what it takes is charged there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from runbook.embedded import die_with_parent
from runbook.sandbox import processes

MODULE = "runbook.sandbox.hogs"
_MB = 2**20
_GLUTTON = (
    "import os, sys\n"
    "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
    "held = []\n"
    "while True: held.append(os.urandom(1 << 20))\n"
)


def taken(megabytes: float) -> bytearray:
    """That much memory with every page of it touched and none like another."""
    held = bytearray(int(megabytes * _MB))
    for page in range(0, len(held), 4096):
        held[page : page + 8] = page.to_bytes(8, "little")
    return held


def leak(given: Mapping[str, Any]) -> NoReturn:
    """Take a little more ten times a second, up to ``most_mb``; then keep it."""
    held = [taken(given.get("begin_mb", 8))]
    processes.ready()
    step = given["mb_per_second"] / 10
    while True:
        if len(held) * step < given["most_mb"]:
            held.append(taken(step))
        time.sleep(0.1)


def many(given: Mapping[str, Any]) -> NoReturn:
    """Be ``count`` processes that each hold ``mb``."""
    reads, writes = os.pipe()
    for _ in range(given["count"] - 1):
        if os.fork() == 0:
            die_with_parent(signal.SIGKILL)()
            held = taken(given["mb"])
            os.write(writes, b".")
            while held:
                signal.pause()
    held = taken(given["mb"])
    waiting = given["count"] - 1
    while waiting:
        waiting -= len(os.read(reads, waiting))
    processes.ready()
    while True:
        signal.pause()


def files(given: Mapping[str, Any]) -> NoReturn:
    """Write ``mb`` to ``path``, each piece to the disk before the next; the file is removed at the end."""
    path = Path(given["path"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with path.open("wb", buffering=0) as out:
            piece = os.urandom(4 * _MB)
            for _ in range(int(given["mb"] / 4)):
                out.write(piece)
                os.fdatasync(out.fileno())
        processes.ready()
        while True:
            signal.pause()
    finally:
        path.unlink(missing_ok=True)


def killed(given: Mapping[str, Any]) -> NoReturn:
    """Have a process killed at a cgroup's limit, once, or ever anew as by a supervisor that restarts it."""
    said = False
    while True:
        child = subprocess.Popen(
            [sys.executable, "-c", _GLUTTON, str(Path(given["procs"]))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        child.wait()
        if not said:
            processes.ready(pid=child.pid, status=child.returncode)
            said = True
        while not given["again"]:
            signal.pause()
        time.sleep(0.4)


def burn(given: Mapping[str, Any]) -> NoReturn:
    """Compute without end."""
    processes.ready()
    while True:
        pass


ACTS: Mapping[str, Callable[[Mapping[str, Any]], NoReturn]] = {
    "leak": leak,
    "many": many,
    "files": files,
    "killed": killed,
    "burn": burn,
}


def main() -> None:
    """In the child: join the cgroup, then act."""
    given = processes.arguments()
    if given.get("join"):
        Path(given["join"]).write_text(str(os.getpid()))
    ACTS[given["act"]](given)


if __name__ == "__main__":
    main()

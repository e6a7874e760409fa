"""One diagnosing connection a database, across the processes of this user on this host: a lock in a directory of ours.

A lock of the kernel's, so that a process that dies gives its turn back by dying.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from runbook.connectors.base import Failure, Unavailable

WAIT_SECONDS = 8.0


@contextlib.contextmanager
def turn(target: str) -> Iterator[None]:
    """Hold the turn of ``target``; wait for it first.

    Raises
    ------
    Unavailable
        The others took longer than :data:`WAIT_SECONDS`.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    with _lock_file(target) as handle:
        while not _locked(handle.fileno()):
            if time.monotonic() > deadline:
                raise Unavailable(
                    Failure(
                        state="rate_limited", reason="other runs hold the one diagnosing connection of this database"
                    )
                )
            time.sleep(0.02)
        yield


def _lock_file(target: str) -> IO[str]:
    directory = Path(tempfile.gettempdir()) / f"runbook-{os.geteuid()}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to somebody else")
        return (directory / f"{hashlib.sha256(target.encode()).hexdigest()[:16]}.lock").open("w")
    except OSError as error:
        reason = f"the lock that keeps to one connection cannot be taken in {directory}: {error.strerror}"
        raise Unavailable(Failure(state="partial", reason=reason)) from None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

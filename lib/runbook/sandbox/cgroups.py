"""A memory cgroup of the sandbox's own, in which faults may use memory up without taking it from anybody else.

Works where the memory controller is: in a hierarchy of version 1, or of version 2 whose root hands it on. It is made
with a limit and removed when it is empty.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from runbook.errors import SandboxError

ROOT = Path("/sys/fs/cgroup")
_EMPTY_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class MemoryCgroup:
    """One cgroup with a limit of memory."""

    directory: Path
    #: As the kernel and the host's facts name it.
    path: str
    version: int

    def add(self, pid: int) -> None:
        """Move a process in; what it holds already stays charged where it was."""
        (self.directory / "cgroup.procs").write_text(f"{pid}\n")

    @property
    def pids(self) -> list[int]:
        """What runs in it."""
        return [int(line) for line in (self.directory / "cgroup.procs").read_text().split()]

    @property
    def usage_bytes(self) -> int:
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        return int((self.directory / name).read_text())

    @property
    def working_bytes(self) -> int:
        """Usage less page cache that can go."""
        key = "inactive_file" if self.version == 2 else "total_inactive_file"
        words = dict(line.split() for line in (self.directory / "memory.stat").read_text().splitlines())
        return max(0, self.usage_bytes - int(words.get(key, 0)))

    def limit(self, limit_bytes: int) -> None:
        """Set the limit; what is page cache above it goes."""
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        (self.directory / name).write_text(f"{limit_bytes}\n")

    @property
    def kills(self) -> int:
        """Processes that were killed at its limit."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        words = dict(line.split() for line in (self.directory / name).read_text().splitlines())
        return int(words.get("oom_kill", 0))

    def remove(self) -> None:
        """Remove it, once what ran in it has ended.

        Raises
        ------
        SandboxError
            Something still runs in it.
        """
        deadline = time.monotonic() + _EMPTY_SECONDS
        while True:
            try:
                self.directory.rmdir()
            except FileNotFoundError:
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SandboxError(f"cgroup {self.path} could not be removed: {error}") from None
                time.sleep(0.05)
            else:
                return


def base() -> tuple[Path, int] | None:
    """Where the memory controller is, and of which version; ``None`` = nowhere."""
    for mount in (ROOT, ROOT / "unified"):
        with contextlib.suppress(OSError):
            if "memory" in (mount / "cgroup.subtree_control").read_text().split():
                return mount, 2
    memory = ROOT / "memory"
    return (memory, 1) if (memory / "memory.limit_in_bytes").exists() else None


def make(limit_bytes: int) -> MemoryCgroup:
    """A new cgroup with that limit, swap not to be had.

    Raises
    ------
    SandboxError
        The kernel, or who owns this container, does not let us.
    """
    where = base()
    if where is None:
        raise SandboxError("no memory controller of cgroups that could be used")
    directory, version = where
    made = directory / f"runbook-{os.getpid()}-{secrets.token_hex(3)}"
    limits = (
        {"memory.max": limit_bytes, "memory.swap.max": 0} if version == 2 else {"memory.limit_in_bytes": limit_bytes}
    )
    try:
        made.mkdir()
    except OSError as error:
        raise SandboxError(f"no cgroup could be made: {error.strerror}") from None
    try:
        for name, value in limits.items():
            if name != "memory.swap.max" or (made / name).exists():
                (made / name).write_text(f"{value}\n")
    except OSError as error:
        made.rmdir()
        raise SandboxError(f"a cgroup could not be limited: {error.strerror}") from None
    return MemoryCgroup(directory=made, path=f"/{made.relative_to(directory)}", version=version)

"""Cgroups of the sandbox's own, in which faults may use up memory or processors without taking them from others.

Works where the controller is: in a hierarchy of version 1, or of version 2 whose root hands it on. A cgroup is made
with a limit and removed when it is empty.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runbook.errors import SandboxError

ROOT = Path("/sys/fs/cgroup")
_EMPTY_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Cgroup:
    """One cgroup."""

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


@dataclass(frozen=True, kw_only=True)
class MemoryCgroup(Cgroup):
    """One with a limit of memory."""

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


@dataclass(frozen=True, kw_only=True)
class QuotaCgroup(Cgroup):
    """One with a quota of processor time."""

    @property
    def throttled(self) -> int:
        """Periods in which its quota was used up."""
        words = dict(line.split() for line in (self.directory / "cpu.stat").read_text().splitlines())
        return int(words["nr_throttled"])

    def borrow(self, pid: int) -> Callable[[], None]:
        """Move a process in; what is returned moves it back to where it was, if it still runs."""
        mounted = Path(str(self.directory).removesuffix(self.path))
        was = next(
            path for _, names, path in (
                line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
            ) if (names == "" if self.version == 2 else "cpu" in names.split(","))
        )  # fmt: skip
        self.add(pid)

        def give_back() -> None:
            with contextlib.suppress(ProcessLookupError):
                (mounted / was.strip("/") / "cgroup.procs").write_text(f"{pid}\n")

        return give_back


def base(controller: str) -> tuple[Path, int] | None:
    """Where a controller (``memory``, ``cpu``) is, and of which version; ``None`` = nowhere."""
    for mount in (ROOT, ROOT / "unified"):
        with contextlib.suppress(OSError):
            if controller in (mount / "cgroup.subtree_control").read_text().split():
                return mount, 2
    return (ROOT / controller, 1) if (ROOT / controller / "cgroup.procs").exists() else None


def make(limit_bytes: int) -> MemoryCgroup:
    """A new cgroup with that limit, swap not to be had.

    Raises
    ------
    SandboxError
        The kernel, or who owns this container, does not let us.
    """
    directory, version = _made("memory")
    limits = (
        {"memory.max": limit_bytes, "memory.swap.max": 0} if version == 2 else {"memory.limit_in_bytes": limit_bytes}
    )
    _limit(directory, {name: value for name, value in limits.items()
                       if name != "memory.swap.max" or (directory / name).exists()})  # fmt: skip
    return MemoryCgroup(directory=directory, path=_path(directory), version=version)


def make_with_quota(cores: float, period_seconds: float) -> QuotaCgroup:
    """A new cgroup that may use so many processors on average over each period; a period is a second at most.

    Raises
    ------
    SandboxError
        The kernel, or who owns this container, does not let us.
    """
    directory, version = _made("cpu")
    period = int(1e6 * period_seconds)
    quota = int(cores * period)
    _limit(directory, {"cpu.max": f"{quota} {period}"} if version == 2
           else {"cpu.cfs_period_us": period, "cpu.cfs_quota_us": quota})  # fmt: skip
    return QuotaCgroup(directory=directory, path=_path(directory), version=version)


def _made(controller: str) -> tuple[Path, int]:
    where = base(controller)
    if where is None:
        raise SandboxError(f"no {controller} controller of cgroups that could be used")
    directory, version = where
    made = directory / f"runbook-{os.getpid()}-{secrets.token_hex(3)}"
    try:
        made.mkdir()
    except OSError as error:
        raise SandboxError(f"no cgroup could be made: {error.strerror}") from None
    return made, version


def _limit(made: Path, limits: Mapping[str, int | str]) -> None:
    try:
        for name, value in limits.items():
            (made / name).write_text(f"{value}\n")
    except OSError as error:
        made.rmdir()
        raise SandboxError(f"a cgroup could not be limited: {error.strerror}") from None


def _path(made: Path) -> str:
    return f"/{made.name}"

"""What a fault may need of the machine itself, beyond programs: each function says why it is lacking, or ``None``."""

from __future__ import annotations

import os
import subprocess
import tempfile
from functools import cache

from runbook.errors import SandboxError
from runbook.sandbox import cgroups
from runbook.sandbox.faults.registry import find_program


def root() -> str | None:
    """The rights of root."""
    return None if os.geteuid() == 0 else "needs root"


@cache
def mounts() -> str | None:
    """A filesystem of one's own, mounted and unmounted."""
    if lacking := root():
        return f"{lacking}, to mount a filesystem"
    mount, umount = find_program("mount"), find_program("umount")
    if mount is None or umount is None:
        return "needs mount (Debian package mount)"
    with tempfile.TemporaryDirectory(prefix="runbook-mount-") as place:
        done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False)
        if done.returncode:
            return "needs the right to mount a filesystem, which this container withholds"
        subprocess.run([umount, place], check=True)
    return None


@cache
def memory_cgroups() -> str | None:
    """A memory cgroup of one's own, with a limit."""
    if lacking := root():
        return f"{lacking}, to make a memory cgroup"
    try:
        made = cgroups.make(64 * 2**20)
    except SandboxError as error:
        return f"needs a memory cgroup of its own: {error.message}"
    made.remove()
    return None

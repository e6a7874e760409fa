"""What a fault may need of the machine itself, beyond programs: each function says why it is lacking, or ``None``."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

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


@cache
def quotas() -> str | None:
    """A cgroup of one's own, with a quota of processor time."""
    if lacking := root():
        return f"{lacking}, to make a cgroup with a quota"
    try:
        made = cgroups.make_with_quota(0.5, 0.1)
    except SandboxError as error:
        return f"needs a cgroup of its own with a quota: {error.message}"
    made.remove()
    return None


@cache
def loops() -> str | None:
    """An image file mounted as a filesystem."""
    if lacking := mounts():
        return lacking
    if not Path("/dev/loop-control").exists():
        return "needs loop devices, which this container withholds"
    losetup = find_program("losetup")
    if losetup is None:
        return "needs losetup (Debian package mount)"
    free = subprocess.run([losetup, "--find"], capture_output=True, check=False)
    return "needs a free loop device" if free.returncode else None


ROOMY_PERCENT = 60.0


def roomy_filesystem() -> str | None:
    """Mount point of a filesystem that has room, in memory if there is one; ``None`` when all are full."""
    found = []
    for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        _, mount, kind, options, *_ = line.split(" ")
        if kind not in ("tmpfs", "ext4", "xfs", "btrfs", "overlay") or "ro" in options.split(",") or "\\" in mount:
            continue
        if kind == "overlay" and mount != "/":
            continue
        try:
            room = os.statvfs(mount)
        except OSError:
            continue
        used = room.f_blocks - room.f_bfree
        if room.f_blocks and room.f_bavail and 100.0 * used / (used + room.f_bavail) <= ROOMY_PERCENT:
            found.append((mount != "/dev/shm", kind != "tmpfs", -room.f_bavail * room.f_frsize, mount))  # noqa: S108
    return min(found)[-1] if found else None


def squashfs() -> str | None:
    """A kernel that knows squashfs."""
    kinds = Path("/proc/filesystems").read_text(encoding="utf-8")
    return None if "\tsquashfs\n" in kinds else "needs a kernel with squashfs"


def empty_squashfs() -> bytes:
    """A squashfs 4.0 image of an empty directory, nothing in it compressed."""
    uncompressed, block = 0x8000, 131072
    # A basic directory inode: type 1, mode 0755, ids 0, time 0, number 1; block 0, links 2, size 3, offset 0, parent 2.
    inode = struct.pack("<HHHHII", 1, 0o755, 0, 0, 0, 1) + struct.pack("<IIHHI", 0, 2, 3, 0, 2)
    inodes = struct.pack("<H", len(inode) | uncompressed) + inode
    directories = struct.pack("<H", uncompressed)
    ids = struct.pack("<H", 4 | uncompressed) + struct.pack("<I", 0)
    inode_at = 96
    directory_at = inode_at + len(inodes)
    id_block_at = directory_at + len(directories)
    id_at = id_block_at + len(ids)
    end = id_at + 8
    none = 0xFFFFFFFFFFFFFFFF
    # Flags: inodes, data, fragments and ids uncompressed, no fragments, no extended attributes.
    flags = 0x1 | 0x2 | 0x8 | 0x10 | 0x200 | 0x800
    head = struct.pack("<IIIIIHHHHHH", 0x73717368, 1, 0, block, 0, 1, 17, flags, 1, 4, 0)
    head += struct.pack("<QQQQQQQQ", 0, end, id_at, none, inode_at, directory_at, none, none)
    image = head + inodes + directories + ids + struct.pack("<Q", id_block_at)
    return image.ljust(-(-len(image) // 4096) * 4096, b"\0")

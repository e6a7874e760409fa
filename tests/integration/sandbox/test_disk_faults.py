"""Faults of disks: each is there while it is injected, and neither a mount, a file nor a process of it is left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runbook.errors import SandboxError
from runbook.sandbox.faults import machine, plan
from runbook.sandbox.faults.scene import Scene
from runbook.sandbox.sandbox import Sandbox
from tests.support import missing


def full(place: Path) -> bool:
    room = os.statvfs(place)
    return room.f_bavail == 0


def no_inodes(place: Path) -> bool:
    return os.statvfs(place).f_ffree == 0


def reserve(place: Path) -> bool:
    room = os.statvfs(place)
    return room.f_bavail == 0 and room.f_bfree > 0


def read_only(place: Path) -> bool:
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)


HOLDS: dict[str, Callable[[Path], bool]] = {
    "D07": full, "D08": no_inodes, "D09": full, "D10": full, "D11": reserve, "D12": full, "D13": read_only,
    "D16": full,
}  # fmt: skip


def mounted_below(directory: Path) -> list[Path]:
    lines = Path("/proc/mounts").read_text().splitlines()
    return sorted(Path(line.split(" ")[1]) for line in lines if line.split(" ")[1].startswith(f"{directory}/"))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A scene of a sandbox of which disk faults need nothing but its directory."""
    return Scene(cast(Sandbox, SimpleNamespace(directory=tmp_path, has_application=False)), {})


@pytest.mark.parametrize("fault", HOLDS)
def test_a_full_disk_is_full_and_then_it_is_gone(fault: str, scene: Scene, tmp_path: Path) -> None:
    planned = plan(fault)
    if lacking := planned.missing():
        missing(lacking.removeprefix("needs "))
    try:
        for one, sizes in planned.faults:
            one.inject(scene, **sizes)
        assert HOLDS[fault](mounted_below(tmp_path)[0])
    finally:
        scene.heal()
    assert (mounted_below(tmp_path), list(tmp_path.iterdir())) == ([], [])


def test_a_log_grows_and_then_it_is_gone_with_its_writer(scene: Scene, tmp_path: Path) -> None:
    [(one, sizes)] = plan("D01").faults
    scene.thresholds = {"critical_hours": 1000}
    try:
        one.inject(scene, **sizes)
        path, pid = scene.named["D01"]
        before = path.stat().st_size
        scene.wait_until(lambda: path.stat().st_size > before, "the log to grow", seconds=10)
    finally:
        scene.heal()
    assert list(tmp_path.iterdir()) == []
    assert not Path(f"/proc/{pid}").exists()


def test_a_disk_that_no_log_could_fill_is_said_to_be_too_large(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = SimpleNamespace(free=10**16)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    [(one, sizes)] = plan("D06").faults
    scene.thresholds = {"critical_hours": 4}
    monkeypatch.setattr(scene, "change", lambda *statements: None)
    with pytest.raises(SandboxError, match="too large"):
        one.inject(scene, **sizes)


def test_an_empty_squashfs_is_a_whole_image() -> None:
    image = machine.empty_squashfs()
    assert image[:4] == b"hsqs"
    assert len(image) % 4096 == 0


def test_the_roomy_filesystem_has_room() -> None:
    mount = machine.roomy_filesystem()
    if mount is None:
        missing("a filesystem with room")
    assert mount is not None
    room = os.statvfs(mount)
    assert room.f_bavail > 0

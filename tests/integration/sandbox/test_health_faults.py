"""Faults of health checks do what they say, and nothing of them is left."""

from __future__ import annotations

import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from runbook.sandbox import processes
from runbook.sandbox.application.replica import MOST_FILES
from runbook.sandbox.faults import health, instances, plan
from runbook.sandbox.faults.scene import Scene

ALONE = ("H01:loop", "H02", "H05", "H07", "H14")
"""One of each kind of trace: a supervisor, a stopped process, a certificate, a Redis, a mount."""


class Watched(Scene):
    """A scene that needs no sandbox and remembers what was started in it."""

    def __init__(self) -> None:
        super().__init__(None, {})  # type: ignore[arg-type]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pids of everything that is launched."""
    pids: list[int] = []
    launch = processes.launch

    def noted(*arguments: Any, **options: Any) -> processes.Launch:
        made = launch(*arguments, **options)
        pids.append(made.process.pid)
        return made

    monkeypatch.setattr(processes, "launch", noted)
    return pids


def inject(fault: str) -> Watched:
    one = plan(fault)
    if lacking := one.missing():
        pytest.skip(lacking)
    scene = Watched()
    try:
        for each, sizes in one.faults:
            each.inject(scene, **sizes)
    except BaseException:
        scene.heal()
        raise
    return scene


@pytest.mark.parametrize("fault", ALONE)
def test_every_process_and_file_of_a_fault_is_gone_when_it_heals(
    fault: str, started: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scene = inject(fault)
    assert started, "it is real: there are processes"
    scene.heal()
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
    assert list(tmp_path.iterdir()) == []


def test_instances_and_front_answer_as_they_are_ordered() -> None:
    scene = Watched()
    try:
        kinds = ("ok", "starting", "failing", "moved", "slow")
        found = instances.started(scene, *kinds, seconds=0.1)
        entrance = instances.front(scene, [instances.address(found[0])])
        said = {k: httpx.get(f"http://{instances.address(c)}/health/ready") for k, c in zip(kinds, found, strict=True)}
        assert {k: r.status_code for k, r in said.items()} == {
            "ok": 200, "starting": 503, "failing": 503, "moved": 301, "slow": 200
        }  # fmt: skip
        assert said["starting"].json()["status"] == "starting"
        assert said["slow"].elapsed.total_seconds() >= 0.1
        assert httpx.get(f"http://{entrance}/health/ready").json()["release"] == "api@1.41.0"
        assert {httpx.get(f"http://{instances.address(c)}/health/live").status_code for c in found} == {200}
    finally:
        scene.heal()


def test_the_certificate_has_really_expired() -> None:
    scene = inject("H05")
    try:
        parts = urlsplit(scene.settings["app"]["ready_url"])
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection((parts.hostname, parts.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as secure,
        ):
            der = secure.getpeercert(binary_form=True)
        assert der is not None
        from cryptography import x509

        ends = x509.load_der_x509_certificate(der).not_valid_after_utc
        assert ends.isoformat(timespec="seconds") in scene.named["H05"]
    finally:
        scene.heal()


def test_a_leak_of_files_stops_at_its_limit() -> None:
    scene = inject("H13:files")
    try:
        pid = scene.named["H13"][0]
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) == MOST_FILES
    finally:
        scene.heal()


def test_the_pattern_knows_instances_and_no_front() -> None:
    import re

    pattern, module = health.QUICK["process_pattern"], "python -m runbook.sandbox.application.replica"
    assert re.search(pattern, f"{module} {instances.INSTANCE}")
    for other in ("front", "vendor", "instance", "instance-000000"):
        assert not re.search(pattern, f"{module} {other}")

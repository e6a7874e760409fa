"""Instances of the application as processes of their own, and what stands before them, for faults of health checks.

They are not the demo application, which goes on unharmed: a drill that kills or stops them heals by ending them.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runbook.sandbox import processes
from runbook.sandbox.application.replica import DETAILED, LIVE, READY
from runbook.sandbox.faults.scene import Scene
from runbook.sandbox.redis_server import RedisServer

MODULE = "runbook.sandbox.application.replica"
PATTERN = r"application\.replica instance"
"""What the command lines of the instances look like."""


def started(scene: Scene, *modes: str, word: str = "instance", **orders: Any) -> list[processes.Child]:
    """Instances in these modes, one each; they end when the fault heals."""
    launched = [processes.launch(MODULE, word) for _ in modes]
    children = []
    for launch, mode in zip(launched, modes, strict=True):
        child = launch.give({"mode": mode, **orders}).ready()
        scene.undo(child.kill)
        children.append(child)
    return children


def address(child: processes.Child) -> str:
    """Host and port of an instance."""
    return f"127.0.0.1:{child.greeting['port']}"


def front(scene: Scene, behind: Sequence[str], **orders: Any) -> str:
    """A front before these addresses; its own."""
    urls = [f"http://{one}" for one in behind]
    return address(started(scene, "ok", word="front", behind=urls, **orders)[0])


def told(scene: Scene, instances: Sequence[str], entrance: str, *, scheme: str = "http", host: str = "") -> None:
    """Tell the diagnosis where the application is: its instances, and the address in front of them."""
    name = f"{host}:{entrance.rpartition(':')[2]}" if host else entrance
    base = f"{scheme}://{name}"
    scene.settings.setdefault("app", {}).update(
        ready_url=base + READY, live_url=base + LIVE, health_url=base + DETAILED, public_url=base,
        instances=list(instances),
    )  # fmt: skip


def stop(scene: Scene, child: processes.Child) -> None:
    """SIGSTOP it; it is let go on before it is ended."""

    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGCONT)

    os.kill(child.pid, signal.SIGSTOP)
    scene.undo(go_on)


def own_redis(scene: Scene) -> tuple[RedisServer, dict[str, Any], str]:
    """A Redis of the instances' own, which can be killed without harm to the queue; it, its state and its URL."""
    place = tempfile.TemporaryDirectory(prefix="runbook-redis-")
    scene.undo(place.cleanup)
    server = RedisServer(Path(place.name) / "redis", owned=True)
    state = server.start()
    scene.undo(lambda: server.end(state["pid"]))
    server.wait(state)
    url = server.url(state)
    scene.settings.setdefault("redis", {})["url"] = url
    return server, state, url


def certificate(scene: Scene, host: str, *, days: float) -> tuple[str, Mapping[str, Any]]:
    """A file with a self-signed certificate for ``host`` that ends in so many days, and its key; and its dates."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sandbox")])
    now = datetime.now(UTC).replace(microsecond=0)
    ends = now + timedelta(days=days)
    builder = x509.CertificateBuilder(subject_name=name, issuer_name=name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(min(now, ends) - timedelta(days=90)).not_valid_after(ends)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    made = builder.sign(key, hashes.SHA256())
    place = tempfile.TemporaryDirectory(prefix="runbook-tls-")
    scene.undo(place.cleanup)
    file = Path(place.name) / "server.pem"
    file.touch(mode=0o600)
    encoding = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(encoding, *plain) + made.public_bytes(encoding))
    return str(file), {"not_after": ends.isoformat(timespec="seconds")}

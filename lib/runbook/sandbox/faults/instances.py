"""Instances of the application as processes of their own, and what stands before them, for faults of health checks.

They are not the demo application, which goes on unharmed: a drill that kills or stops them heals by ending them.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from runbook.embedded import die_with_parent
from runbook.sandbox import processes
from runbook.sandbox.application.replica import DETAILED, LIVE, READY
from runbook.sandbox.faults.production import Production
from runbook.sandbox.faults.registry import find_program
from runbook.sandbox.faults.scene import Scene
from runbook.sandbox.redis_server import RedisServer

MODULE = "runbook.sandbox.application.replica"
INSTANCE = f"instance-{secrets.token_hex(3)}"
PATTERN = rf"application\.replica {INSTANCE}$"
"""What the command lines of the instances look like; other sandboxes on this host have others."""


def started(scene: Scene, *modes: str, word: str = INSTANCE, **orders: Any) -> list[processes.Child]:
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


def metrics_server(scene: Scene, *, target: str, name: str) -> None:
    """A Prometheus that scrapes ``target`` under this name, and the diagnosis told of it."""
    place = tempfile.TemporaryDirectory(prefix="runbook-metrics-")
    scene.undo(place.cleanup)
    port = Production.closed_port()
    job = {"job_name": "uptime", "scrape_interval": "1s", "scrape_timeout": "1s",
           "static_configs": [{"targets": [target], "labels": {"instance": name}}]}  # fmt: skip
    configuration = Path(place.name) / "prometheus.yml"
    configuration.write_text(json.dumps({"scrape_configs": [job]}))  # JSON is YAML
    process = subprocess.Popen(
        [str(find_program("prometheus")), f"--config.file={configuration}", f"--storage.tsdb.path={place.name}/data",
         f"--web.listen-address=127.0.0.1:{port}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent(signal.SIGTERM),
    )  # fmt: skip

    def end() -> None:
        process.kill()
        process.wait()

    scene.undo(end)
    url = f"http://127.0.0.1:{port}"
    scene.settings.setdefault("prometheus", {})["url"] = url

    def scraped() -> bool:
        try:
            answer = httpx.get(f"{url}/api/v1/query", params={"query": "up == 0"}, timeout=2)
            return bool(answer.json()["data"]["result"])
        except (httpx.HTTPError, ValueError, KeyError):
            return False

    scene.wait_until(scraped, "the metrics server to scrape")


def full_disk(scene: Scene) -> str:
    """A filesystem of a megabyte without a byte left; where it is mounted."""
    place = tempfile.mkdtemp(prefix="runbook-disk-")
    scene.undo(lambda: Path(place).rmdir())
    mount, umount = str(find_program("mount")), str(find_program("umount"))
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True, capture_output=True)
    scene.undo(lambda: subprocess.run([umount, place], check=True, capture_output=True))
    with (Path(place) / "uploads.log").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 65_536)
    return place


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

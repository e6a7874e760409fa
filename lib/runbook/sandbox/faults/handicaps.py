"""What a diagnosis may have to do without: privileges and systems that it usually has."""

from __future__ import annotations

import socket

from runbook.sandbox.faults.registry import handicap
from runbook.sandbox.faults.scene import Scene


@handicap("no_pg_monitor", "the diagnosing role lacks pg_monitor", tried_with="P01", unknown=("postgresql",))
def no_pg_monitor(scene: Scene) -> None:
    """Sessions of others are hidden from the role that diagnoses."""
    scene.settings.setdefault("postgres", {})["dsn"] = scene.sandbox.dsn("nobody_special")


@handicap("sentry_401", "Sentry refuses the token", tried_with="E03", blinds=False, unknown=("sentry",))
def sentry_401(scene: Scene) -> None:
    """The token was revoked: no issue is seen, which is not the same as none."""
    scene.settings.setdefault("sentry", {})["token"] = "revoked"  # noqa: S105 - a token that is none


@handicap("no_access_log", "requests are counted nowhere", tried_with="E01", unknown=("traffic",))
def no_access_log(scene: Scene) -> None:
    """Neither an access log nor metrics: Sentry alone is sampled and no measure of a rate."""
    scene.settings.setdefault("traffic", {})["access_log"] = ""


@handicap("no_redis_login", "Redis refuses the password", tried_with="V12", unknown=("bullmq",))
def no_redis_login(scene: Scene) -> None:
    """The queue cannot be seen: a worker that is not seen is not a worker that is not there."""
    url = scene.sandbox.settings()["redis"]["url"]
    before, _, after = url.rpartition("@")
    scene.settings.setdefault("redis", {})["url"] = f"{before.rpartition(':')[0]}:wrong@{after}"


@handicap("no_host", "the workers' host does not answer", tried_with="M01", unknown=("host",))
def no_host(scene: Scene) -> None:
    """Nobody listens for SSH where the host should be: its memory is unknown, and that is not the same as fine."""
    address = f"nobody@127.0.0.1:{scene.production.closed_port()}"
    scene.settings.setdefault("workers", {})["hosts"] = [address]


@handicap("host_away", "the host with the full disk does not answer", tried_with="D07", unknown=("host",))
def host_away(scene: Scene) -> None:
    """The one host of the workers lets nobody in: a full disk that is not seen is not one that has room."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scene.settings.setdefault("workers", {})["hosts"] = [f"nobody@127.0.0.1:{port}"]

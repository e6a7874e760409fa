"""Faults on the way of an upload: bucket, browser, size, provider, webhook, row."""

from __future__ import annotations

from typing import Any

from runbook.sandbox.faults.registry import fault
from runbook.sandbox.faults.scene import Scene

RUNBOOK = "video_upload_failures"
#: Rows count as stuck after minutes instead of an hour.
QUICK = {"stuck_after_minutes": 5}
_FAILED = 24


@fault("V01", "bucket denies the write", scaled=QUICK)
def write_denied(scene: Scene) -> None:
    """A policy denies PutObject and nothing else: HEAD and LIST look healthy."""
    scene.production.deny("s3:PutObject")
    _until_failed(scene)
    scene.name("V01", "AccessDenied")


@fault("V02", "storage key revoked", scaled=QUICK)
def key_revoked(scene: Scene) -> None:
    """Application and diagnosis are configured with a key that the storage no longer knows."""
    scene.production.storage_settings(access_key_id="AKIAREVOKED000000000")
    _until_failed(scene)
    scene.name("V02", "InvalidAccessKeyId")


@fault("V04", "wrong bucket", scaled=QUICK)
def wrong_bucket(scene: Scene, *, bucket: str = "acme-media-old") -> None:
    """Application and diagnosis are configured with a bucket that is not there."""
    scene.production.storage_settings(bucket=bucket)
    _until_failed(scene)
    scene.name("V04", "NoSuchBucket")


@fault("V05", "CORS refuses the browser", scaled=QUICK)
def no_cors(scene: Scene) -> None:
    """The bucket lets another origin's browsers upload, not ours; servers are not asked for their origin."""
    scene.production.origins("https://old.acme.example")
    _until_failed(scene)
    scene.name("V05", scene.sandbox.origin)


@fault("V07", "size limit", scaled=QUICK)
def size_limit(scene: Scene, *, megabytes: int = 50) -> None:
    """The application's limit was lowered: larger files get 413, smaller ones go through."""
    scene.production.uploads(upload_limit_bytes=megabytes * 1024 * 1024)
    scene.production.rows("READY", _FAILED // 2)


@fault("V09:outage", "transcoding provider down", scaled=QUICK)
def provider_outage(scene: Scene) -> None:
    """Mux answers 503 to everybody, whatever file it is; its status page says nothing yet."""
    scene.production.vendor("mux", mode="outage")
    _until_failed(scene)
    scene.name("V09", "outage", "Mux")


@fault("V09:input", "one creator's files are no videos", expects=("V15",), scaled=QUICK)
def not_videos(scene: Scene, *, creator: str = "creator-7") -> None:
    """Half of all uploads are of one creator, and none of that creator's files is a video."""
    error = {"type": "invalid_input", "messages": ["ERR_NON_VIDEO: the file does not contain a video track."]}
    scene.production.vendor("mux", mode="errored", only=creator, error=error, transcode_seconds=0.2)
    _until_failed(scene, busy_creator=creator)
    scene.name("V15", creator)


@fault("V10", "webhooks lost", scaled=QUICK)
def webhooks_lost(scene: Scene, *, rows: int = _FAILED) -> None:
    """Mux is done with the videos, and what would tell the application so never arrives. The rows are set back."""
    scene.production.vendor("mux", webhooks=False, transcode_seconds=0.1)
    scene.production.uploads()
    scene.production.rows("PROCESSING", rows)
    scene.production.stop_uploads()
    scene.production.age_uploads()


@fault("V16", "storage throttles", scaled=QUICK)
def storage_throttles(scene: Scene) -> None:
    """The object storage answers every request 503 SlowDown."""
    scene.production.throttle()
    _until_failed(scene)
    scene.name("V16", "SlowDown")


@fault("V18", "storage unreachable", scaled=QUICK)
def storage_unreachable(scene: Scene) -> None:
    """Nobody listens where the storage's endpoint should be."""
    scene.production.storage_settings(endpoint_url=f"http://127.0.0.1:{scene.production.closed_port()}")
    _until_failed(scene)


def _until_failed(scene: Scene, **stage: Any) -> None:
    scene.production.uploads(**stage)
    scene.production.rows("FAILED", _FAILED)

"""Builds the readings of an upload pipeline that is described in a few words, for tables of rules."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from runbook.result import Reading
from tests.unit.diagnosis.server import NOW, reading

Row = dict[str, Any]
STEPS = ("identity", "head", "location", "list", "public_access", "policy_status", "cors", "lifecycle", "encryption",
         "multipart", "canary_put", "canary_head", "canary_delete")  # fmt: skip
DATA_PATH = ("identity", "head", "location", "list", "multipart", "canary_put")


def ago(seconds: float) -> str:
    """A time so many seconds before now, ISO 8601."""
    return (NOW - timedelta(seconds=seconds)).isoformat()


@dataclass
class Pipeline:
    """An application with uploads; everything has a default that is healthy."""

    #: Uploads of the window by creator: ``(state, seconds since it moved)``.
    rows: list[Row] = field(default_factory=list)
    #: Answers of the bucket that differ: step → (answer, code, http status).
    bucket: dict[str, tuple[str, str, int | None]] = field(default_factory=dict)
    canary: bool = True
    skew: float = 0.2
    preflight: Row = field(default_factory=dict)
    multipart: list[Row] = field(default_factory=list)
    state: Row = field(default_factory=dict)
    active: list[Row] = field(default_factory=list)
    failed: list[Row] = field(default_factory=list)
    completed: list[Row] = field(default_factory=list)
    looks: int = 3
    videos: list[Row] = field(default_factory=list)
    requests: Row = field(default_factory=dict)
    splits: list[Row] = field(default_factory=list)
    upstreams: list[Row] = field(default_factory=list)
    log: dict[str, int] = field(default_factory=dict)
    disks: list[Row] = field(default_factory=list)
    processes: int = 1
    status_pages: dict[str, str] = field(default_factory=dict)
    usual_failed: int = 1
    states: tuple[str, ...] = ("UPLOADING", "PROCESSING", "PENDING_REVIEW", "READY", "FAILED")
    #: Readings that replace those of the same name.
    instead: dict[str, Reading] = field(default_factory=dict)
    next_id: int = 100

    def upload(self, count: int = 1, *, status: str = "READY", creator: str = "", age: float = 300.0) -> list[str]:
        """``count`` uploads in one state that have not moved for ``age`` seconds; returns their ids."""
        ids = []
        for _ in range(count):
            self.next_id += 1
            ids.append(f"upload-{self.next_id:06d}")
            self.rows.append(
                {"id": ids[-1], "creator_id": creator or f"creator-{self.next_id % 17}", "status": status, "age": age}
            )
        return ids

    def fail_jobs(self, count: int, reason: str) -> None:
        """``count`` jobs that failed for ``reason``, with their rows."""
        for identity in self.upload(count, status="FAILED"):
            row = {"id": identity, "job": "transcode", "failed_at": ago(120), "reason": reason, "attempts": 3}
            self.failed.append(row | {"stalled_count": 0})

    def video(self, identity: str, status: str = "ready", *, provider: str = "mux", **more: Any) -> None:
        """The provider's video of an upload."""
        row = {
            "provider": provider, "id": f"asset-{identity}", "status": status, "raw_status": status,
            "created_at": ago(600), "age_seconds": 600, "reference": f"video:{identity}", "creator": None,
            "error_code": None, "error_message": None, "upload_id": None, "progress_percent": None,
        }  # fmt: skip
        self.videos.append(row | more)

    # -- readings -----------------------------------------------------------------------------------------------------

    def readings(self) -> list[Reading]:
        """All readings of one run."""
        made = [
            reading("content_overview", self._overview()),
            *self._queue_looks(),
            *self._traffic(),
            reading("content_history", [{"hour": ago(n * 3600), "total": 30, "failed": self.usual_failed}
                                        for n in range(1, 100)]),
            *self._storage(),
            *self._providers(),
            reading("app_errors", self._log(), source="shell"),
            reading("content_by_creator", self._creators()),
            reading("worker_disk", self.disks or [_disk()], source="shell"),
            reading("worker_processes", [{"host": "local", "pid": 4000 + n, "state": "Sl", "age_seconds": 900,
                                          "rss_kb": 90000, "command": "node worker.js"}
                                         for n in range(self.processes)], source="shell"),
            reading("redis_ping", {"answer": "PONG", "milliseconds": 0.4}, source="redis"),
            reading("queue_failed", self.failed, source="bullmq"),
            reading("queue_completed", self.completed, source="bullmq"),
            reading("stuck_rows", self._stuck()),
            reading("content_states", [{"label": label} for label in self.states]),
            reading("multipart_uploads", self.multipart, source="object_storage"),
            reading("worker_restart", [{"position": 1, "word": "systemctl"}, {"position": 2, "word": "restart"},
                                       {"position": 3, "word": "worker"}], source="shell"),
        ]  # fmt: skip
        return [self.instead.get(r.name, r) for r in made]

    def _bad(self, row: Row) -> str:
        if row["status"] == "FAILED":
            return "failed" if row["age"] <= 3600 else ""
        if row["status"] not in ("UPLOADING", "PROCESSING"):
            return ""
        return "under_way" if row["age"] < 3600 else "stuck" if row["age"] < 7200 else ""

    def _counted(self) -> list[Row]:
        return [row for row in self.rows if row["age"] <= 3600 or self._bad(row)]

    def _overview(self) -> list[Row]:
        by_state: dict[str, Counter[str]] = {}
        for row in self._counted():
            by_state.setdefault(row["status"], Counter())[self._bad(row)] += 1
        return [
            {"status": status, "uploads": sum(counts.values()), "creators": 1,
             **{key: counts[key] for key in ("failed", "stuck", "under_way")}}
            for status, counts in by_state.items()
        ]  # fmt: skip

    def _creators(self) -> list[Row]:
        found: dict[str, Counter[str]] = {}
        for row in self._counted():
            found.setdefault(row["creator_id"], Counter()).update(["total", self._bad(row)])
        rows = [
            {"creator_id": c, "total": n["total"], "failed": n["failed"], "stuck": n["stuck"]} for c, n in found.items()
        ]
        hit = sum(1 for row in rows if row["failed"] + row["stuck"])
        rows.sort(key=lambda r: (-(r["failed"] + r["stuck"]), r["creator_id"]))
        return [row | {"creators_hit": hit, "creators_total": len(rows)} for row in rows[:20]]

    def _stuck(self) -> list[Row]:
        return [
            {"id": row["id"], "creator_id": row["creator_id"], "status": row["status"], "created_at": ago(row["age"]),
             "updated_at": ago(row["age"]), "unmoved_seconds": row["age"], "in_window": row["age"] < 7200,
             "provider_ids": []}
            for row in self.rows
            if row["status"] in ("UPLOADING", "PROCESSING") and row["age"] >= 3600
        ]  # fmt: skip

    def _queue_looks(self) -> list[Reading]:
        state = {
            "queue": "transcode", "prefix": "bull", "exists": True, "version": "bullmq:5.81.5", "major": 5,
            "paused": False, "waiting": 0, "in_wait_list": 0, "in_paused_list": 0, "active": len(self.active),
            "delayed": 0, "delayed_overdue": 0, "prioritized": 0, "failed": len(self.failed),
            "completed": 1000 + len(self.completed), "waiting_children": 0, "concurrency": None, "limiter_ms": 0,
            "oldest_waiting_seconds": None, "workers": 1, "worker_clients": [], "other_queues": [],
        } | self.state  # fmt: skip
        found = []
        for _ in range(self.looks):
            found += [reading("queue_state", [dict(state)], source="bullmq"),
                      reading("queue_active", list(self.active), source="bullmq")]  # fmt: skip
        return found

    def _storage(self) -> list[Reading]:
        rows = []
        for step in STEPS:
            usual = ("cannot tell", "", None) if step.startswith("canary") and not self.canary else ("yes", "", 200)
            answer, code, status = self.bucket.get(step, usual)
            rows.append({"step": step, "answer": answer, "code": code, "http_status": status, "detail": "",
                         "duration_ms": 3.0})  # fmt: skip
        flight = {"origin": "https://app.example", "method": "PUT", "http_status": 200, "allowed": True,
                  "allow_origin": "https://app.example", "allow_methods": "PUT",
                  "reason": ""} | self.preflight  # fmt: skip
        return [
            reading("bucket_checks", rows, source="object_storage"),
            reading("storage_clock", [{"skew_seconds": self.skew, "at": NOW.isoformat()}], source="object_storage"),
            reading("cors_preflight", [flight], source="object_storage"),
        ]

    def _providers(self) -> list[Reading]:
        pages = [
            {"vendor": vendor, "indicator": self.status_pages.get(vendor, "none"), "answered": True, "components": [],
             "incidents": []}
            for vendor in ("mux", "cloudflare")
        ]  # fmt: skip
        streamed = [v for v in self.videos if v["provider"] == "stream"]
        return [
            reading("vendor_status", pages, source="status_pages"),
            reading("mux_assets", [v for v in self.videos if v["provider"] == "mux"], source="mux"),
            reading("mux_uploads", [], source="mux"),
            reading("stream_videos", streamed, source="cloudflare_stream"),
            reading("stream_storage", {"used_minutes": 100, "limit_minutes": 1000}, source="cloudflare_stream"),
        ]

    def _traffic(self) -> list[Reading]:
        requests = {"requests": 4000, "errors": 2, "closed_by_client": 0, "window_seconds": 3600} | self.requests
        usual = [
            {"by": "route", "value": "/api/uploads", "requests": 40, "errors": 0},
            {"by": "route", "value": "/webhooks/mux", "requests": 36, "errors": 0},
            {"by": "route", "value": "/api/feed", "requests": 3900, "errors": 2},
            {"by": "status", "value": "200", "requests": 3990, "errors": 0},
        ]
        replaced = {(r["by"], r["value"]) for r in self.splits}
        splits = [r for r in usual if (r["by"], r["value"]) not in replaced] + self.splits
        return [
            reading("requests", [requests], source="traffic"),
            reading("splits", splits, source="traffic"),
            reading("upstreams", self.upstreams, source="traffic"),
        ]

    def _log(self) -> list[Row]:
        return [
            {"log": "/var/log/app.log", "pattern": pattern, "count": count, "last": ago(60), "sample": pattern}
            for pattern, count in self.log.items()
        ]


def _disk() -> Row:
    return {"host": "local", "filesystem": "/dev/sda1", "mount": "/tmp", "size_kb": 10_000_000, "used_kb": 4_000_000,
            "available_kb": 6_000_000, "used_percent": 40, "inodes_percent": 5}  # fmt: skip

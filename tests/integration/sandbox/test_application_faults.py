"""Each fault of the application: what it does to requests, uploads and jobs, and that nothing of it is left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from runbook import catalog
from runbook.drills.turns import rotating_few
from runbook.errors import SandboxError
from runbook.sandbox import Sandbox
from runbook.sandbox.faults import Injected, inject, known, state
from runbook.sandbox.stack import PREFIX, QUEUE

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Seen:
    """What a fault has done by the time that it is injected."""

    sandbox: Sandbox
    injected: Injected
    lines: list[dict[str, Any]]
    log: list[str]

    def failed(self, *by: str) -> Counter[Any]:
        """Requests answered 5xx since, by these fields."""
        bad = [line for line in self.lines if line["status"] >= 500]
        return Counter(tuple(line[field] for field in by) for line in bad)

    def share(self, **fields: Any) -> float:
        """Share of the later requests with these fields that were answered 5xx."""
        later = self.lines[len(self.lines) // 2 :]
        asked = [line for line in later if all(line[name] == value for name, value in fields.items())]
        return sum(line["status"] >= 500 for line in asked) / len(asked)

    def rows(self) -> dict[str, int]:
        query = b"SELECT status::text, count(*) FROM content WHERE id LIKE 'upload-%' GROUP BY 1"
        with self.sandbox.superuser() as connection:
            return {str(status): int(count) for status, count in connection.execute(query).fetchall()}

    def stuck_minutes(self) -> float:
        """How long the youngest of the uploads under way has not moved."""
        query = b"""SELECT extract(epoch FROM timezone('UTC', now()) - max("updatedAt")) / 60 FROM content
                    WHERE id LIKE 'upload-%' AND status IN ('UPLOADING', 'PROCESSING')"""
        with self.sandbox.superuser() as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return float(row[0])

    def job(self, where: str, field: str) -> str | None:
        """A field of the oldest job there."""
        with self.sandbox.redis() as redis:
            key = f"{PREFIX}:{QUEUE}:{where}"
            jobs: Any = redis.zrange(key, 0, 0) if where in ("failed", "completed") else redis.lrange(key, -1, -1)
            value: Any = redis.hget(f"{PREFIX}:{QUEUE}:{jobs[0]}", field) if jobs else None
        return value

    def jobs(self, where: str) -> int:
        with self.sandbox.redis() as redis:
            key = f"{PREFIX}:{QUEUE}:{where}"
            count: Any = redis.zcard(key) if where in ("failed", "completed") else redis.llen(key)
        return int(count)

    def locked(self) -> bool:
        """Whether a job that runs has a lock."""
        with self.sandbox.redis() as redis:
            active: Any = redis.lrange(f"{PREFIX}:{QUEUE}:active", 0, -1)
            return any(redis.exists(f"{PREFIX}:{QUEUE}:{job}:lock") for job in active)

    def workers(self) -> int:
        """Worker connections that Redis knows."""
        with self.sandbox.redis() as redis:
            clients: Any = redis.client_list()
        return sum(client["name"].startswith(f"{PREFIX}:") for client in clients)


# -- requests ---------------------------------------------------------------------------------------------------------


def new_release(seen: Seen) -> None:
    assert set(seen.failed("release")) == {("api@1.42.0",)}
    assert 0.25 < seen.share(release="api@1.42.0") < 0.35
    github = seen.sandbox.vendors.state("github")
    assert github["deployments"][0]["ref"] == "v1.42.0"
    assert seen.sandbox.vendors.state("sentry")["releases"][0]["version"] == "api@1.42.0"


def configuration(seen: Seen) -> None:
    by_instance = [seen.share(instance=f"web-{n}") for n in range(1, 5)]
    assert min(by_instance) > 0.3
    run = seen.sandbox.vendors.state("github")["workflow_runs"][0]
    assert (run["name"], run["event"]) == ("Update configuration", "workflow_dispatch")


def no_slot(seen: Seen) -> None:
    assert seen.share(path="/api/content") > 0.5
    assert [line for line in seen.log if "53300" in line]


def cannot_write(seen: Seen) -> None:
    assert {line["method"] for line in seen.lines if line["status"] >= 500} == {"POST"}
    assert [line for line in seen.log if "SQLSTATE 25006" in line]


def column_gone(seen: Seen) -> None:
    assert [line for line in seen.log if "SQLSTATE 42703" in line]
    files = seen.sandbox.vendors.state("github")["commits"][0]["files"]
    assert files[0]["filename"].startswith("prisma/migrations/")


def stripe_down(seen: Seen) -> None:
    assert set(seen.failed("upstream", "upstream_status")) == {("api.stripe.com", 503)}
    assert seen.share(upstream="api.stripe.com") > 0.9
    assert httpx.get(f"{page(seen, 'stripe')}/api/v2/status.json").json()["status"]["indicator"] == "none"


def page(seen: Seen, name: str) -> str:
    return str(seen.sandbox.settings()["status_pages"][name])


def stripe_slow(seen: Seen) -> None:
    assert ("api.stripe.com", None, 504) in seen.failed("upstream", "upstream_status", "status")


def stripe_refuses(seen: Seen) -> None:
    assert set(seen.failed("upstream", "upstream_status")) == {("api.stripe.com", 401)}
    probe = next(host for host in seen.sandbox.settings()["traffic"]["upstream_hosts"] if host.startswith("api.stripe"))
    assert httpx.get(probe.partition("=")[2]).status_code < 500


def stripe_throttles(seen: Seen) -> None:
    assert set(seen.failed("upstream", "upstream_status")) == {("api.stripe.com", 429)}
    assert sum(line["upstream"] is not None for line in seen.lines) > 0.35 * len(seen.lines)


def surge(seen: Seen) -> None:
    assert len(seen.lines) > 400
    assert len({line["client"] for line in seen.lines}) > 150
    late = [line["duration_ms"] for line in seen.lines[-200:] if line["status"] < 500]
    assert sum(late) / len(late) > 60


def flood(seen: Seen) -> None:
    by_client = seen.failed("client")
    assert by_client[("203.0.113.77",)] > 0.95 * sum(by_client.values())


def front_alone(seen: Seen) -> None:
    assert set(seen.failed("status", "instance", "release")) == {(502, None, None)}
    assert not [line for line in seen.log if "ERROR" in line]


def one_instance(seen: Seen) -> None:
    assert set(seen.failed("instance")) == {("web-2",)}
    assert seen.share(instance="web-2") > 0.8


def few(seen: Seen) -> None:
    assert sum(seen.failed("status").values()) >= 3


# -- uploads ----------------------------------------------------------------------------------------------------------


def failed_uploads(words: str) -> Callable[[Seen], None]:
    def look(seen: Seen) -> None:
        assert seen.rows()["FAILED"] >= 24
        assert "READY" not in seen.rows()
        assert [line for line in seen.log if words in line]

    return look


def too_large(seen: Seen) -> None:
    refused = [line for line in seen.lines if line["status"] == 413]
    assert len(refused) >= 5
    assert seen.rows()["READY"] >= 12
    assert [line for line in seen.log if "exceeds the limit of 52428800 bytes" in line]


def mux_down(seen: Seen) -> None:
    assert seen.rows()["FAILED"] >= 24
    assert "503" in (seen.job("failed", "failedReason") or "")


def odd_files(seen: Seen) -> None:
    query = b"SELECT DISTINCT \"creatorId\" FROM content WHERE id LIKE 'upload-%' AND status = 'FAILED'"
    with seen.sandbox.superuser() as connection:
        assert connection.execute(query).fetchall() == [("creator-7",)]
    assert seen.rows()["READY"] >= 5


def silent_mux(seen: Seen) -> None:
    assert set(seen.rows()) == {"PROCESSING"}
    assert seen.stuck_minutes() > 5
    fresh = [asset for asset in seen.sandbox.vendors.state("mux")["assets"] if asset["creator"]]
    assert {asset["status"] for asset in fresh} == {"ready"}


def full_disk(seen: Seen) -> None:
    assert "No space left on device" in (seen.job("failed", "failedReason") or "")


def waiting(seen: Seen) -> None:
    assert seen.jobs("wait") >= 24
    assert seen.stuck_minutes() > 5


def nobody_works(seen: Seen) -> None:
    waiting(seen)
    assert seen.workers() == 0


def paused(seen: Seen) -> None:
    waiting(seen)
    assert seen.workers() > 0
    with seen.sandbox.redis() as redis:
        assert redis.hget(f"{PREFIX}:{QUEUE}:meta", "paused") == "1"


def hanging(seen: Seen) -> None:
    assert seen.jobs("active") == 2
    assert seen.locked()


def blocked(seen: Seen) -> None:
    assert seen.jobs("active") >= 1
    assert not seen.locked()
    assert seen.workers() > 0


def died(seen: Seen) -> None:
    assert seen.jobs("active") >= 1
    assert not seen.locked()
    assert seen.workers() == 0


def old_rows(seen: Seen) -> None:
    assert seen.jobs("completed") >= 24
    assert set(seen.rows()) == {"UPLOADING"}
    assert seen.stuck_minutes() > 5


def ordinary(seen: Seen) -> None:
    assert not seen.failed("status")


LOOKS: dict[str, Callable[[Seen], None]] = {
    "E01": new_release,
    "E02": configuration,
    "E03": no_slot,
    "E04": cannot_write,
    "E05": column_gone,
    "E06": stripe_down,
    "E06:slow": stripe_slow,
    "E07": stripe_refuses,
    "E08": stripe_throttles,
    "E09": surge,
    "E10": flood,
    "E11": front_alone,
    "E12": one_instance,
    "insufficient": few,
    "V01": failed_uploads("403 AccessDenied"),
    "V02": failed_uploads("403 InvalidAccessKeyId"),
    "V04": failed_uploads("blocked by CORS"),
    "V05": failed_uploads("blocked by CORS"),
    "V07": too_large,
    "V09:outage": mux_down,
    "V09:input": odd_files,
    "V10": silent_mux,
    "V11": full_disk,
    "V12": nobody_works,
    "V12:paused": paused,
    "V12:hung": hanging,
    "V12:blocked": blocked,
    "V12:dead": died,
    "V14": old_rows,
    "V16": failed_uploads("503 SlowDown"),
    "V18": failed_uploads("ConnectionRefusedError"),
    "healthy": ordinary,
}


TURNS = rotating_few(8, day=datetime.now(UTC).date(), among=LOOKS)
"""Each takes ten seconds and more, and drills inject and heal all of them every time: some others every day."""


@pytest.mark.parametrize("fault", TURNS)
def test_fault_is_as_described_and_gone_afterwards(application: Sandbox, fault: str) -> None:
    before = state.require_clean(application)
    access, app = application.access_log.stat().st_size, application.app_log.stat().st_size
    with inject(fault, application) as injected:
        lines = [json.loads(line) for line in application.access_log.read_bytes()[access:].decode().splitlines()]
        log = application.app_log.read_bytes()[app:].decode().splitlines()
        LOOKS[fault](Seen(application, injected, lines, log))
    state.require_restored(application, before)
    later = [json.loads(line) for line in application.access_log.read_bytes()[access:].decode().splitlines()]
    assert sum(line["status"] >= 500 for line in later) < 0.02 * len(later)
    assert "ERROR" not in application.app_log.read_bytes()[app:].decode()


@pytest.mark.parametrize("runbook", ["high_error_rate", "video_upload_failures"])
def test_every_known_fault_is_looked_at(runbook: str) -> None:
    assert {id for id in known(catalog.load(runbook)) if "~" not in id and "+" not in id} <= set(LOOKS)


def test_an_application_that_goes_on_failing_is_told(application: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "PATIENCE_SECONDS", 2.0)
    before = state.require_clean(application)
    application.application.change(failures=[{"share": 1.0}])
    try:
        with pytest.raises(SandboxError, match="application left: fails"):
            state.require_restored(application, before)
    finally:
        application.application.reset()
    monkeypatch.undo()
    state.require_restored(application, before)

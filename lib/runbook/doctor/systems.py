"""Every other system: one light look through its connector, as a notebook would take it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from runbook.connectors.base import Context
from runbook.connectors.systems import Systems
from runbook.doctor.check import Check
from runbook.result import Reading

if TYPE_CHECKING:
    from runbook.settings import Settings

AT_ONCE = 8


@dataclass(frozen=True)
class Look:
    """How a system is looked at, under which section it is configured, and what helps when it cannot be read."""

    section: str
    take: Callable[[Systems], Reading]
    remedy: str
    #: What is wrong although it answered; empty = nothing.
    problem: Callable[[Reading], str] = lambda reading: ""


def _bucket(systems: Systems) -> Reading:
    """The bucket's checks without the test upload: the doctor changes nothing."""
    from runbook.connectors.object_storage import ObjectStorage

    return ObjectStorage(systems.context, systems.settings.s3.model_copy(update={"canary": False})).checks()


def _refused(reading: Reading) -> str:
    refused = [r for r in reading.rows if r["step"] in ("head", "location", "list") and r["answer"] == "no"]
    return "; ".join(f"{r['step']}: {r['code']} {r['detail'] or ''}".strip() for r in refused)


def _no_queue(reading: Reading) -> str:
    row = reading.rows[0] if reading.rows else {}
    others = ", ".join(row.get("other_queues") or []) or "none"
    return f"there is no queue of that name; others: {others}" if row.get("exists") is False else ""


def _inactive(reading: Reading) -> str:
    status = reading.rows[0].get("status") if reading.rows else "unknown"
    return "" if status == "active" else f"the token is {status}"


LOOKS = (
    Look("traffic", lambda s: s.traffic.rate(300), "Check the path, its permissions and traffic.fields"),
    Look("prometheus", lambda s: s.prometheus.query("up", "up"), "Check prometheus.url"),
    Look("app", lambda s: s.health.check(), "Check the URLs under app"),
    Look("redis", lambda s: s.redis.ping(), "Check redis.url: host, port, user and password"),
    Look("queue", lambda s: s.queue.state(), "Check queue.name and queue.prefix against the application", _no_queue),
    Look("s3", _bucket, "Check s3.bucket, s3.region, s3.endpoint_url and the keys", _refused),
    Look("workers", lambda s: s.hosts.run("reachable", ["true"]), "Check workers.hosts, keys and known_hosts"),
    Look("sentry", lambda s: s.sentry.issues(60), "The token needs event:read, project:read and org:read"),
    Look("github", lambda s: s.github.deployments(), "The token needs to read deployments, actions and contents"),
    Look("status_pages", lambda s: s.status_pages.all(), "Check the addresses under status_pages"),
    Look("mux", lambda s: s.mux.assets(_yesterday(s)), "The token needs to read Mux Video"),
    Look("cloudflare", lambda s: s.stream.token(), "The token needs to read Stream", _inactive),
    Look("aws", lambda s: s.aws.ecs(), "Allow ecs:DescribeServices and autoscaling:Describe*"),
    Look("pagerduty", lambda s: s.pagerduty.incidents(_yesterday(s)), "Check pagerduty.token"),
)


def _yesterday(every: Systems) -> datetime:
    return every.context.now() - timedelta(days=1)


def systems(prefix: str, scope: Settings, base: Settings, context: Context) -> Iterator[Check]:
    """What is configured in this scope, and for a service only where it differs from ``base``."""
    asked = [look for look in LOOKS if not prefix or getattr(scope, look.section) != getattr(base, look.section)]
    every = Systems(context, scope)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="doctor") as pool:
        readings = list(pool.map(lambda look: look.take(every), asked))
    for look, reading in zip(asked, readings, strict=True):
        if prefix and reading.state == "not_configured":
            continue  # told of the settings that all services share
        yield _check(f"{prefix}{look.section}", look, reading)


def _check(system: str, look: Look, reading: Reading) -> Check:
    if reading.state == "not_configured":
        return Check(system=system, check="readable", ok=None, seen=f"not configured: {reading.reason}")
    problem = look.problem(reading) if reading.known else ""
    if problem:
        return Check(system=system, check="readable", ok=False, seen=f"{reading.target}: {problem}", remedy=look.remedy)
    if reading.state == "ok":
        count = len(reading.rows)
        seen = f"{reading.target}: answered within {reading.duration_ms:.0f} ms, {count} row{'s' if count != 1 else ''}"
        return Check(system=system, check="readable", ok=True, seen=seen)
    seen = f"{reading.target}: {reading.state.replace('_', ' ')}: {reading.reason}"
    return Check(system=system, check="readable", ok=False, seen=seen, remedy=look.remedy)

"""The past of the access log: lines as a healthy day writes them, so that a baseline exists when the sandbox is new.

Only for times that have passed. The present is made of real requests.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from runbook.sandbox.application.backend import STRIPE_HOST
from runbook.sandbox.application.front import line
from runbook.sandbox.application.stage import CLIENTS, INSTANCES, RELEASE, REQUESTS_PER_SECOND
from runbook.sandbox.application.traffic import MIX, USERS

MINUTES = 20
#: One request in so many fails on an ordinary day.
ONE_FAILS_IN = 500


def lines(since: datetime, until: datetime) -> Iterator[str]:
    """What would have been logged from ``since`` to ``until``, oldest first."""
    chance = random.Random(int(since.timestamp()))  # noqa: S311 - traffic, not secrets
    count = int((until - since).total_seconds() * REQUESTS_PER_SECOND)
    routes = list(MIX.values())
    weights = [weight for _, _, weight in routes]
    for number, (method, path, _) in enumerate(chance.choices(routes, weights, k=count)):
        moment = since + timedelta(seconds=number / REQUESTS_PER_SECOND)
        fails = number % ONE_FAILS_IN == ONE_FAILS_IN - 1
        vendor = path == "/api/checkout"
        yield line(
            time=moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            method=method,
            path=path.format(content=f"content-{chance.randint(1, 3000)}"),
            status=500 if fails else 201 if vendor else 204 if "likes" in path else 200,
            duration_ms=round(chance.uniform(26, 48), 1),
            bytes=0 if "likes" in path else chance.randint(20, 1800),
            client=f"198.51.100.{chance.randint(1, CLIENTS)}",
            user=f"user-{chance.randint(1, USERS)}",
            release=RELEASE,
            instance=INSTANCES[number % len(INSTANCES)],
            upstream=STRIPE_HOST if vendor else None,
            upstream_status=200 if vendor else None,
            upstream_connect_time=0.0 if vendor else None,
            upstream_response_time=round(chance.uniform(0.001, 0.015), 6) if vendor else None,
        )

"""What the access log says about uploads: requests to their routes, what was refused, calls to the provider."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runbook.diagnosis.readings import Readings, number
from runbook.diagnosis.uploads.limits import Limits

PROVIDERS = {"mux": ("mux.com", "mux."), "stream": ("cloudflarestream", "videodelivery", "cloudflare.com")}
"""Parts of the host names of the providers that we know."""
TOO_LARGE = "413"


def provider_of(host: str) -> str:
    """The video provider that a host belongs to; empty when it is none of those we know."""
    return next((name for name, parts in PROVIDERS.items() if any(part in host.lower() for part in parts)), "")


@dataclass(frozen=True)
class Traffic:
    """Requests as the edge counted them."""

    readings: Readings
    limits: Limits

    @cached_property
    def configured(self) -> bool:
        reading = self.readings.last("splits")
        return reading is not None and reading.state != "not_configured"

    def _split(self, by: str) -> list[dict[str, Any]] | None:
        """The rows of one split; ``None`` when the log does not carry the field."""
        rows = self.readings.rows("splits")
        mine = [row for row in rows or [] if row.get("by") == by]
        return None if rows is None or any(row.get("missing") for row in mine) else mine

    def _routes(self, part: str) -> list[dict[str, Any]] | None:
        rows = self._split("route")
        return None if rows is None else [r for r in rows if part and part.lower() in str(r.get("value")).lower()]

    @cached_property
    def upload_routes(self) -> list[dict[str, Any]] | None:
        """Routes of uploads; a webhook that has the word in its path is none."""
        rows = self._routes(self.limits.upload_route)
        hook = self.limits.webhook_route.lower()
        return None if rows is None else [r for r in rows if not (hook and hook in str(r.get("value")).lower())]

    @cached_property
    def requests(self) -> int | None:
        """Requests to the routes of uploads."""
        rows = self.upload_routes
        return None if rows is None else int(sum(number(r, "requests") for r in rows))

    @cached_property
    def errors(self) -> int | None:
        """Of those, answered 5xx."""
        rows = self.upload_routes
        return None if rows is None else int(sum(number(r, "errors") for r in rows))

    @cached_property
    def too_large(self) -> int | None:
        """Requests answered 413, on whatever route: only an upload has such a body."""
        rows = self._split("status")
        return None if rows is None else int(sum(number(r, "requests") for r in rows if str(r["value"]) == TOO_LARGE))

    @cached_property
    def failing(self) -> int | None:
        """Requests of uploads that failed, by the edge's count."""
        if self.errors is None and self.too_large is None:
            return None
        return (self.errors or 0) + (self.too_large or 0)

    @cached_property
    def closed_by_client(self) -> int | None:
        row = self.readings.row("requests")
        value = row.get("closed_by_client") if row else None
        return int(value) if isinstance(value, int | float) else None

    @cached_property
    def webhooks(self) -> dict[str, int] | None:
        """Requests to the webhook's routes, and of those the failed ones."""
        rows = self._routes(self.limits.webhook_route)
        if rows is None:
            return None
        return {name: int(sum(number(r, name) for r in rows)) for name in ("requests", "errors")}

    @cached_property
    def provider_calls(self) -> list[dict[str, Any]] | None:
        """Our calls to a video provider's hosts."""
        rows = self.readings.rows("upstreams")
        return None if rows is None else [r for r in rows if provider_of(str(r.get("host")))]

    @cached_property
    def provider_errors(self) -> int | None:
        """Of those, 5xx, time-outs and no answer."""
        rows = self.provider_calls
        return None if rows is None else int(sum(number(r, "upstream_errors") for r in rows))

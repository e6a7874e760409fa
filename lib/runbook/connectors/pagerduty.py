"""PagerDuty's REST API: which incidents are open or were lately.

It reads only; acknowledging is a message and stands elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from runbook.connectors.answers import collected, fetched, first_line, inside, iso, known, text, whole, zulu
from runbook.connectors.base import Context, Fetched
from runbook.connectors.http import Exchange, HttpConnector, as_rows, shown
from runbook.result import Reading
from runbook.settings import PagerDuty as Section

PAGE = 100
PAGES = 5
_STATUSES = {name: name for name in ("triggered", "acknowledged", "resolved")}


class PagerDuty(HttpConnector):
    """One account."""

    source = "pagerduty"

    def __init__(self, context: Context, section: Section) -> None:
        token = section.token.get_secret_value() if section.token else ""
        super().__init__(
            context,
            section.base_url,
            headers={
                "Authorization": f"Token token={token}",
                "Accept": "application/vnd.pagerduty+json;version=2",
            },
            lacking="" if token else "pagerduty.token",
        )

    def incidents(self, since: datetime) -> Reading:
        """``pagerduty_incidents``: incidents created since then, newest first, whatever became of them."""
        path = "/incidents"
        params: dict[str, Any] = {
            "since": zulu(since), "until": zulu(self.context.now()), "sort_by": "created_at:desc", "limit": PAGE,
        }  # fmt: skip

        def pages(exchange: Exchange) -> Iterator[tuple[list[dict[str, Any]], bool]]:
            for page in range(PAGES):
                found = exchange.get(path, {**params, "offset": page * PAGE}).object
                more = found.get("more") is True
                yield as_rows(found.get("incidents")), more and page == PAGES - 1
                if not more:
                    return

        def take(exchange: Exchange) -> Fetched:
            found, missing = collected(self, pages(exchange), "incidents")
            return fetched([_incident(item) for item in found], missing)

        return self.gather("pagerduty_incidents", shown(path, params), take)


def _incident(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": text(item.get("id")),
        "number": whole(item.get("incident_number")),
        "title": first_line(item.get("title")),
        "status": known(item.get("status"), _STATUSES, "unknown"),
        "urgency": text(item.get("urgency")),
        "created_at": iso(item.get("created_at")),
        "service": text(inside(item, "service", "summary")),
        "url": text(item.get("html_url")),
    }

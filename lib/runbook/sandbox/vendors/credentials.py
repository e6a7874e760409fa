"""What the simulator accepts as credentials, derived from the one token it was started with, and settings with them.

Derived, so that whoever holds the token can write the settings, while an application that was given one credential
learns nothing of the others and cannot reach the control side.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, fields
from typing import Any

ORGANIZATION = "acme"
PROJECT = "api"
ENVIRONMENT = "production"
REPOSITORY = "acme/api"
ACCOUNT = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
ON_CALL = "oncall@acme.example"
STATUS_PAGES = ("stripe", "mux", "cloudflare", "github", "discord")


@dataclass(frozen=True, kw_only=True, repr=False)
class Credentials:
    """One secret for each purpose."""

    sentry: str
    #: Public key of the address that SDKs report errors to.
    sentry_ingest: str
    github: str
    mux_id: str
    mux_secret: str
    #: Mux signs its webhooks with it.
    mux_webhook: str
    cloudflare: str
    pagerduty: str
    #: Routing key of the Events API.
    pagerduty_routing: str
    #: The token in a Discord webhook's URL.
    discord: str
    stripe: str

    @classmethod
    def of(cls, token: str) -> Credentials:
        """The credentials that belong to a simulator started with ``token``: 32 hexadecimal digits each."""
        names = (field.name for field in fields(cls))
        return cls(**{name: hmac.new(token.encode(), name.encode(), hashlib.sha256).hexdigest()[:32] for name in names})


def settings(base_url: str, token: str) -> dict[str, dict[str, Any]]:
    """The settings, by section, that point the product at the simulator at ``base_url``. They hold secrets."""
    known = Credentials.of(token)
    pages = {name: f"{base_url}/status/{name}" for name in STATUS_PAGES}
    return {
        "sentry": {
            "base_url": f"{base_url}/sentry",
            "organization": ORGANIZATION,
            "project": PROJECT,
            "environment": ENVIRONMENT,
            "token": known.sentry,
        },
        "github": {
            "base_url": f"{base_url}/github",
            "repository": REPOSITORY,
            "environment": ENVIRONMENT,
            "token": known.github,
            "action_token": known.github,
            "rollback_workflow": "rollback.yml",
        },
        "mux": {"base_url": f"{base_url}/mux", "token_id": known.mux_id, "token_secret": known.mux_secret},
        "cloudflare": {
            "base_url": f"{base_url}/cloudflare/client/v4",
            "account_id": ACCOUNT,
            "token": known.cloudflare,
        },
        "status_pages": {**pages, "aws": f"{base_url}/aws/public/currentevents"},
        "discord": {"webhook_url": f"{base_url}/discord/api/webhooks/1/{known.discord}"},
        "pagerduty": {
            "base_url": f"{base_url}/pagerduty",
            "routing_key": known.pagerduty_routing,
            "token": known.pagerduty,
            "from_email": ON_CALL,
        },
    }

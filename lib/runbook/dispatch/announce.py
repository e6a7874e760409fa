"""Tells people of a run that ended, however it ended: on Discord, or in the log where no webhook is configured."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from runbook.notify import discord
from runbook.settings import Settings

log = structlog.get_logger(__name__)


def report_url(result: Mapping[str, Any], settings: Settings) -> str:
    """Where the report of a run is served; empty when it has none."""
    if not (result.get("report") or {}).get("html"):
        return ""
    return f"{public_url(settings)}/reports/{result['run_id']}"


def jupyter_url(run_id: str, settings: Settings) -> str:
    """The link that opens a run in the JupyterLab of whoever follows it; empty where there is no such link."""
    base = settings.jupyter.url.rstrip("/")
    return f"{base}/runbook/runs/{run_id}" if base.startswith(("http://", "https://")) else ""


def public_url(settings: Settings) -> str:
    """The base of links to the service."""
    server = settings.server
    host = f"[{server.host}]" if ":" in server.host else server.host
    return (server.public_url or f"http://{host}:{server.port}").rstrip("/")


async def say(text: str, settings: Settings, service: str = "") -> None:
    """A message of one line where runs are announced, or in the log."""
    settings = settings.for_service(service)
    webhook = settings.discord.webhook_url
    if webhook is None:
        log.info("message not sent: no discord.webhook_url", message=text)
        return
    posted = await asyncio.to_thread(discord.post, webhook.get_secret_value(), discord.line(text))
    if posted.state != "sent":
        log.error("message not sent", state=posted.state, reason=posted.reason)


async def announce(result: Mapping[str, Any], settings: Settings) -> discord.Posted | None:
    """Send the run's message, or log it as it would be sent; returns ``None`` in the latter case."""
    settings = settings.for_service(str((result.get("parameters") or {}).get("service", "")))
    body = discord.message(
        result, report_url(result, settings), settings.discord.mention,
        jupyter_url=jupyter_url(str(result["run_id"]), settings),
    )  # fmt: skip
    webhook = settings.discord.webhook_url
    if webhook is None:
        log.info("message not sent: no discord.webhook_url", run_id=result["run_id"], message=list(discord.shown(body)))
        return None
    posted = await asyncio.to_thread(discord.post, webhook.get_secret_value(), body)
    if posted.state == "sent":
        log.info("message sent", run_id=result["run_id"], message_id=posted.message_id)
    else:
        log.error("message not sent", run_id=result["run_id"], state=posted.state, reason=posted.reason)
    return posted

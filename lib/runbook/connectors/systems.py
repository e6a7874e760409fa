"""The systems of one run: every connector, built on first use from the settings in force.

A connector whose settings are missing is there all the same: its readings say *not configured*, and which setting it
would take. Only diagnosing credentials are known here.
"""

from __future__ import annotations

import ipaddress
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

if TYPE_CHECKING:
    from runbook.connectors.app_metrics import AppMetrics
    from runbook.connectors.aws import Aws
    from runbook.connectors.base import Context
    from runbook.connectors.bullmq import BullQueue
    from runbook.connectors.github import GitHub
    from runbook.connectors.health import Health
    from runbook.connectors.host import Host
    from runbook.connectors.hosts import Hosts
    from runbook.connectors.mux import Mux
    from runbook.connectors.object_storage import ObjectStorage
    from runbook.connectors.pagerduty import PagerDuty
    from runbook.connectors.pgbouncer import PgBouncer
    from runbook.connectors.postgres import Postgres
    from runbook.connectors.prometheus import Prometheus
    from runbook.connectors.reach import Reach
    from runbook.connectors.redis_server import RedisServer
    from runbook.connectors.sentry import Sentry
    from runbook.connectors.shell import Shell
    from runbook.connectors.status_pages import StatusPages
    from runbook.connectors.stream import Stream
    from runbook.connectors.traffic import Traffic
    from runbook.connectors.walk import Walk
    from runbook.settings import Settings


class Systems:
    """Connectors by name. What is never used is never imported."""

    def __init__(self, context: Context, settings: Settings) -> None:
        self.context = context
        self.settings = settings

    # -- databases and queues -----------------------------------------------------------------------------------------

    @cached_property
    def postgres(self) -> Postgres:
        """The PostgreSQL under diagnosis."""
        from runbook.connectors.postgres import Postgres

        section = self.settings.postgres
        return Postgres(self.context, clear(section.dsn), clear(section.reserve_dsn))

    @cached_property
    def pgbouncer(self) -> PgBouncer:
        """The pooler before it."""
        from runbook.connectors.pgbouncer import PgBouncer

        return PgBouncer(self.context, clear(self.settings.postgres.pgbouncer_dsn))

    @cached_property
    def redis(self) -> RedisServer:
        """The Redis of the application."""
        from runbook.connectors.redis_server import RedisServer

        return RedisServer(self.context, clear(self.settings.redis.url))

    @cached_property
    def queue(self) -> BullQueue:
        """The BullMQ queue in it."""
        from runbook.connectors.bullmq import BullQueue

        return BullQueue(self.context, clear(self.settings.redis.url), self.settings.queue)

    # -- storage and hosting ------------------------------------------------------------------------------------------

    @cached_property
    def storage(self) -> ObjectStorage:
        """The bucket that uploads go to."""
        from runbook.connectors.object_storage import ObjectStorage

        public = urlsplit(self.settings.app.public_url)
        origin = f"{public.scheme}://{public.netloc}" if public.netloc else ""
        return ObjectStorage(self.context, self.settings.s3, origin)

    @cached_property
    def aws(self) -> Aws:
        """The ECS service and the autoscaling group."""
        from runbook.connectors.aws import Aws

        return Aws(self.context, self.settings.aws)

    @cached_property
    def shell(self) -> Shell:
        """Commands on this host."""
        from runbook.connectors.shell import Shell

        return Shell(self.context)

    @cached_property
    def hosts(self) -> Hosts:
        """Commands on the workers' hosts, all at once."""
        from runbook.connectors.hosts import Hosts

        return Hosts(self.context, self.settings.workers)

    @cached_property
    def host(self) -> Host:
        """Facts of the workers' hosts: disk, memory, processes."""
        from runbook.connectors.host import Host

        return Host(self.context, self.settings.workers)

    # -- the application ----------------------------------------------------------------------------------------------

    @cached_property
    def traffic(self) -> Traffic:
        """Requests as the access log or the metrics server counted them."""
        from runbook.connectors.traffic import Traffic

        prometheus = self.prometheus if self.settings.prometheus.url else None
        return Traffic(self.context, self.settings.traffic, prometheus)

    @cached_property
    def health(self) -> Health:
        """The health endpoints."""
        from runbook.connectors.health import Health

        return Health(self.context, self.settings.app)

    @cached_property
    def walk(self) -> Walk:
        """The way to the health endpoints, layer by layer."""
        from runbook.connectors.walk import Walk

        return Walk(self.context, self.settings.app)

    def instance_host(self, *urls: str) -> Host:
        """Facts of the hosts that the instances run on: those of ``workers.hosts``, and this one where one is here.

        An instance is here when its address is loopback; ``urls`` are further addresses that are asked.
        """
        from runbook.connectors.host import Host
        from runbook.connectors.hosts import LOCAL

        section, app = self.settings.workers, self.settings.app
        asked = [app.ready_url, app.health_url, app.live_url, app.public_url, *app.instances, *urls]
        if LOCAL not in section.hosts and any(map(is_loopback, asked)):
            section = section.model_copy(update={"hosts": [*section.hosts, LOCAL]})
        return Host(self.context, section)

    @cached_property
    def app_metrics(self) -> AppMetrics:
        """The application's own metrics endpoint."""
        from runbook.connectors.app_metrics import AppMetrics

        return AppMetrics(self.context, self.settings.app)

    @cached_property
    def reach(self) -> Reach:
        """Name, connection and certificate of the hosts that the application calls."""
        from runbook.connectors.reach import Reach

        return Reach(self.context, self.settings.traffic.upstream_hosts)

    @cached_property
    def prometheus(self) -> Prometheus:
        """The metrics server."""
        from runbook.connectors.prometheus import Prometheus

        return Prometheus(self.context, self.settings.prometheus.url)

    # -- vendors ------------------------------------------------------------------------------------------------------

    @cached_property
    def sentry(self) -> Sentry:
        """Errors as Sentry groups them."""
        from runbook.connectors.sentry import Sentry

        return Sentry(self.context, self.settings.sentry)

    @cached_property
    def github(self) -> GitHub:
        """Deployments, workflow runs and commits."""
        from runbook.connectors.github import GitHub

        return GitHub(self.context, self.settings.github)

    @cached_property
    def status_pages(self) -> StatusPages:
        """What vendors say of themselves."""
        from runbook.connectors.status_pages import StatusPages

        return StatusPages(self.context, self.settings.status_pages)

    @cached_property
    def mux(self) -> Mux:
        """Mux Video."""
        from runbook.connectors.mux import Mux

        return Mux(self.context, self.settings.mux)

    @cached_property
    def stream(self) -> Stream:
        """Cloudflare Stream."""
        from runbook.connectors.stream import Stream

        return Stream(self.context, self.settings.cloudflare)

    @cached_property
    def pagerduty(self) -> PagerDuty:
        """Incidents at PagerDuty. Its token acts as well, so no kernel is given one."""
        from runbook.connectors.pagerduty import PagerDuty

        return PagerDuty(self.context, self.settings.pagerduty)


def clear(secret: SecretStr | None) -> str | None:
    """A secret as its system needs it."""
    return secret.get_secret_value() if secret is not None else None


def is_loopback(address: str) -> bool:
    """Whether a URL, or ``host:port``, points at this very host."""
    try:
        host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Starts the PostgreSQL that comes in a wheel, for the product's own store and for the sandbox."""

from runbook.embedded.binaries import ServerUser, die_with_parent, server_user
from runbook.embedded.server import FAST, SUPERUSER, EmbeddedPostgres, free_port

__all__ = ["FAST", "SUPERUSER", "EmbeddedPostgres", "ServerUser", "die_with_parent", "free_port", "server_user"]

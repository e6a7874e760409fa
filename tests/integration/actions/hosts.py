"""Workers' hosts of a test: this one, and one over SSH."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.connectors.sshd import Home, Sshd


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def sshd(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd") / "one", home).start()
    yield server
    server.stop()


@pytest.fixture(params=["local", "ssh"])
def host(request: pytest.FixtureRequest, home: Home, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a host as ``workers.hosts`` has it."""
    monkeypatch.setenv("HOME", str(home.directory))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    home.trust(sshd)
    return "local" if request.param == "local" else sshd.address

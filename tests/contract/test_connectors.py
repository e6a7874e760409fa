"""Connectors against the vendors' published specifications, served by Prism.

Every request is valid, every documented answer is understood, every documented refusal has its state. Not in any
published document, and so tested elsewhere only: Sentry's ``stats_v2``, AWS's public events, the verification of an
account's own token at Cloudflare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from pydantic import SecretStr

from runbook import settings
from runbook.connectors.github import GitHub
from runbook.connectors.mux import Mux
from runbook.connectors.pagerduty import PagerDuty
from runbook.connectors.prometheus import Prometheus
from runbook.connectors.sentry import Sentry
from runbook.connectors.status_pages import StatusPages
from runbook.connectors.stream import Stream
from runbook.result import Reading
from tests.contract.prism import Gate, contract, gate, operation
from tests.vendor_stub import SECRET, Stub, context

TOKEN = SecretStr(SECRET)
NOW = datetime.now(UTC)
SINCE = NOW - timedelta(hours=1)
ORG = "/api/0/organizations/{organization_id_or_slug}"
REPO = "/repos/{owner}/{repo}"
ACCOUNT = "023e105f4ecef8ad9ca31a8372d0c353"
Fetch = Callable[[str], Reading]


def sentry(url: str) -> Sentry:
    section = settings.Sentry(base_url=url, organization="acme", project="api", environment="production", token=TOKEN)
    return Sentry(context(), section)


def github(url: str) -> GitHub:
    return GitHub(
        context(),
        settings.GitHub(base_url=url, repository="octocat/Hello-World", environment="production", token=TOKEN),
    )


def mux(url: str) -> Mux:
    return Mux(context(), settings.Mux(base_url=url, token_id="id", token_secret=TOKEN))


def stream(url: str) -> Stream:
    return Stream(context(), settings.Cloudflare(base_url=f"{url}/client/v4", account_id=ACCOUNT, token=TOKEN))


def pagerduty(url: str) -> PagerDuty:
    return PagerDuty(context(), settings.PagerDuty(base_url=url, token=TOKEN))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One reading, and the operations that it is made from, the first of them the one that it depends on."""

    document: str
    paths: tuple[str, ...]
    fetch: Fetch
    #: Where the document's paths begin at this vendor.
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.document} {self.paths[0].rpartition('}/')[2].strip('/')}"

    def pattern(self, path: str) -> re.Pattern[str]:
        return re.compile(re.escape(self.prefix) + re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)))


CASES = (
    Case(document="sentry", paths=(f"{ORG}/issues/", f"{ORG}/issues/{{issue_id}}/"),
         fetch=lambda url: sentry(url).issues(60)),
    Case(document="sentry", paths=(f"{ORG}/issues/{{issue_id}}/events/{{event_id}}/",),
         fetch=lambda url: sentry(url).latest_event("1")),
    Case(document="sentry", paths=(f"{ORG}/events-timeseries/",), fetch=lambda url: sentry(url).error_curve(60)),
    Case(document="sentry", paths=(f"{ORG}/releases/", f"{ORG}/releases/{{version}}/deploys/"),
         fetch=lambda url: sentry(url).releases()),
    Case(document="sentry", paths=(f"{ORG}/events/",), fetch=lambda url: sentry(url).by_release(60)),
    Case(document="github", paths=(f"{REPO}/deployments", f"{REPO}/deployments/{{deployment_id}}/statuses"),
         fetch=lambda url: github(url).deployments()),
    Case(document="github", paths=(f"{REPO}/actions/runs",), fetch=lambda url: github(url).workflow_runs(SINCE)),
    Case(document="github", paths=(f"{REPO}/commits",), fetch=lambda url: github(url).commits(SINCE)),
    Case(document="github", paths=(f"{REPO}/compare/{{basehead}}",), fetch=lambda url: github(url).compare("a", "b")),
    Case(document="mux", paths=("/video/v1/assets",), fetch=lambda url: mux(url).assets(SINCE)),
    Case(document="mux", paths=("/video/v1/uploads",), fetch=lambda url: mux(url).uploads()),
    Case(document="cloudflare", paths=("/accounts/{account_id}/stream",), prefix="/client/v4",
         fetch=lambda url: stream(url).videos(SINCE)),
    Case(document="cloudflare", paths=("/user/tokens/verify",), prefix="/client/v4",
         fetch=lambda url: stream(url).token()),
    Case(document="cloudflare", paths=("/accounts/{account_id}/stream/storage-usage",), prefix="/client/v4",
         fetch=lambda url: stream(url).storage()),
    Case(document="pagerduty", paths=("/incidents",), fetch=lambda url: pagerduty(url).incidents(SINCE)),
    Case(document="prometheus", paths=("/query",), prefix="/api/v1",
         fetch=lambda url: Prometheus(context(), url).query("up", 'up{job="a b"}', NOW)),
    Case(document="prometheus", paths=("/query_range",), prefix="/api/v1",
         fetch=lambda url: Prometheus(context(), url).range("up", "up", SINCE, NOW, 60)),
    Case(document="statuspage", paths=("/api/v2/summary.json", "/api/v2/incidents.json"),
         fetch=lambda url: StatusPages(context(), {"vendor": url}).all()),
)  # fmt: skip
EVERY = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="session")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[Gate, Stub]]]:
    """A Prism for each document, from its first use to the end."""
    with ExitStack() as stack:
        yield cache(lambda document: stack.enter_context(gate(document, tmp_path_factory.mktemp(document))))


@pytest.fixture
def ask(gates: Callable[[str], tuple[Gate, Stub]]) -> Iterator[Callable[..., tuple[Reading, Gate]]]:
    """``ask(case, wanted)``: the reading, where the operation it depends on answers as wanted."""
    used: list[Gate] = []

    def get(case: Case, wanted: str = "") -> tuple[Reading, Gate]:
        passing, stub = gates(case.document)
        used.append(passing)
        passing.passed.clear()
        passing.wanted = (case.pattern(case.paths[0]), wanted) if wanted else None
        return case.fetch(stub.url), passing

    yield get
    for passing in used:
        passing.wanted = None


@EVERY
def test_every_request_is_valid_and_its_answer_understood(case: Case, ask: Any) -> None:
    reading, passing = ask(case)
    assert [request.violations for request in passing.passed] == [""] * len(passing.passed)
    for path in case.paths:
        assert any(case.pattern(path).fullmatch(request.path) for request in passing.passed), f"{path} was not asked"
    assert (reading.state, reading.reason) == ("ok", "")
    assert reading.rows


@EVERY
def test_every_documented_example_is_understood(case: Case, ask: Any) -> None:
    success = operation(contract(case.document), case.paths[0])["responses"]["200"]
    content = success["content"]["application/json"]
    for example in content.get("examples", {}):
        reading, passing = ask(case, f"example={example}")
        assert (example, reading.state, reading.reason) == (example, "ok", "")
        assert {request.status for request in passing.passed} == {200}


@EVERY
def test_every_documented_refusal_has_its_state(case: Case, ask: Any) -> None:
    documented = [int(status) for status in operation(contract(case.document), case.paths[0])["responses"]
                  if status.isdigit() and int(status) >= 400]  # fmt: skip
    for status in documented:
        reading, passing = ask(case, f"code={status}")
        assert status in {r.status for r in passing.passed if case.pattern(case.paths[0]).fullmatch(r.path)}
        state = REFUSED[status]
        if reading.source == "status_pages":
            (row,) = reading.rows
            assert (row["answered"], row["reason"].partition(":")[0]) == (False, state.replace("_", " "))
        else:
            assert (status, reading.state, reading.value) == (status, state, None)


REFUSED = {
    400: "partial",
    401: "auth_failed",
    403: "permission_denied",
    404: "permission_denied",
    409: "partial",
    429: "rate_limited",
    500: "unreachable",
    503: "unreachable",
}

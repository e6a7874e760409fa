"""What holds of every runbook: it comes to its end whatever it may not see, and data from an alert stays data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook import catalog
from runbook.execution.execute import RunRequest, execute
from runbook.execution.kernels import KernelPool
from runbook.reporting.archive import Archive
from runbook.sandbox import Sandbox
from runbook.settings import from_plain
from runbook.store.ids import new_run_id

RUNBOOKS = catalog.load_all()
ON_APPLICATION = ("high_error_rate", "video_upload_failures")
VENDORS = ("sentry", "github", "stripe", "mux", "stream", "status.stripe", "status.mux", "status.cloudflare",
           "status.github", "status.discord", "aws")  # fmt: skip

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(tmp_path_factory.mktemp("application") / "sandbox", owned=True) as up:
        yield up


Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs a runbook with these settings on a warm kernel; gives the result document."""
    with KernelPool(1) as pool:
        assert pool.wait_ready()

        def once(name: str, settings: dict[str, Any], place: Path, **parameters: Any) -> dict[str, Any]:
            quick = {"samples": 1} if "samples" in catalog.load(name).parameters else {}
            request = RunRequest(run_id=new_run_id(), runbook=name, parameters=quick | parameters)
            return execute(request, from_plain(settings), archive=Archive(place), pool=pool)

        yield once


def cell_errors(result: dict[str, Any]) -> list[str]:
    notebook = json.loads(Path(result["report"]["notebook"]).read_text(encoding="utf-8"))
    return [
        f"{output['ename']}: {output['evalue']}"
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if output["output_type"] == "error"
    ]


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=lambda runbook: runbook.name)
def test_with_nothing_configured_it_ends_undetermined_and_says_what_it_did_not_check(
    runbook: catalog.Runbook, run: Run, tmp_path: Path
) -> None:
    result = run(runbook.name, {}, tmp_path)
    assert (result["state"], result["outcome"], cell_errors(result)) == ("succeeded", "undetermined", [])
    assert {v["cause"] for v in result["verdict"]} == set(runbook.causes)
    assert not [v for v in result["verdict"] if v["tier"] in ("confirmed", "probable", "possible")]
    assert {n["state"] for n in result["not_checked"]} == {"not_configured"}
    assert all(n["reason"] for n in result["not_checked"])
    assert result["symptom"]["value"] is None


@pytest.mark.parametrize(
    ("failure", "states"),
    [
        ({"status": 401}, {"auth_failed"}),
        ({"status": 403}, {"permission_denied"}),
        ({"status": 404}, {"permission_denied"}),
        ({"status": 429, "headers": {"Retry-After": "120"}}, {"rate_limited"}),
        ({"status": 500}, {"unreachable"}),
        ({"kind": "truncated"}, {"partial"}),
        ({"kind": "html"}, {"partial"}),
        ({"kind": "redirect"}, {"unreachable"}),
        ({"kind": "huge"}, {"partial"}),
        ({"kind": "silence"}, {"timeout"}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("name", ON_APPLICATION)
def test_vendors_that_answer_badly_are_named_and_harm_nothing_else(
    name: str, failure: dict[str, Any], states: set[str], sandbox: Sandbox, run: Run, tmp_path: Path
) -> None:
    try:
        for vendor in VENDORS:
            sandbox.vendors.fail(vendor, **failure)
        result = run(name, sandbox.settings(), tmp_path)
    finally:
        for vendor in VENDORS:
            sandbox.vendors.heal(vendor)
    assert (result["state"], cell_errors(result)) == ("succeeded", [])
    asked = {"high_error_rate": {"sentry", "github"}, "video_upload_failures": {"mux", "cloudflare_stream"}}[name]
    told = {(n["source"], n["state"]) for n in result["not_checked"] if n["source"] in asked}
    assert told == {(source, state) for source in asked for state in states}
    assert result["symptom"]["value"] is not None, "the systems that answer were measured all the same"


@pytest.mark.parametrize(
    "user_id", ["'; drop table content; --", "$(reboot)", "`id`", "-rf /", "<script>alert(1)</script>"]
)
def test_a_hostile_user_id_is_data_everywhere(user_id: str, sandbox: Sandbox, run: Run, tmp_path: Path) -> None:
    def rows() -> int:
        with sandbox.superuser() as admin:
            counted = admin.execute("SELECT count(*) FROM content WHERE title LIKE 'Title %'").fetchone()
        assert counted is not None
        return int(counted[0])

    before = rows()
    assert before > 0
    result = run("video_upload_failures", sandbox.settings(), tmp_path, user_id=user_id)
    assert (result["state"], cell_errors(result)) == ("succeeded", [])
    assert rows() == before
    assert "<script>alert(1)" not in Path(result["report"]["html"]).read_text(encoding="utf-8")

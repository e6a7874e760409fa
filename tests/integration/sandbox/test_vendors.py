"""The vendors' simulator as a process: its control side, its failures, its credentials, and what happens over time."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from runbook.errors import SandboxError
from runbook.sandbox.vendors.control import Vendors
from runbook.sandbox.vendors.credentials import Credentials
from tests.contract.simulator import Simulator
from tests.contract.simulator import running as started
from tests.support import free_port, wait_until

NAMES = (
    "sentry", "github", "stripe", "mux", "stream", "pagerduty", "discord", "aws",
    "status.stripe", "status.mux", "status.cloudflare", "status.github", "status.discord",
)  # fmt: skip
READS = {
    "sentry": "/api/0/organizations/acme/issues/",
    "github": "/repos/acme/api/deployments",
    "stripe": "/v1/balance",
    "mux": "/video/v1/assets",
    "stream": "/user/tokens/verify",
    "pagerduty": "/incidents",
    "aws": "/public/currentevents",
    "status.stripe": "/api/v2/summary.json",
}
"""One ordinary request of each vendor."""
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with started(tmp_path_factory.mktemp("simulator"), "test") as simulator:
        yield simulator


@pytest.fixture
def simulator(running: Simulator) -> Iterator[Simulator]:
    yield running
    running.vendors.reset()


def read(simulator: Simulator, vendor: str, **more: Any) -> httpx.Response:
    return simulator.ask(vendor, "GET", READS[vendor], **more)


# -- control ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", NAMES)
def test_every_vendor_has_a_state_that_a_reset_restores(simulator: Simulator, vendor: str) -> None:
    before = simulator.vendors.state(vendor)
    simulator.vendors.reset(vendor)
    assert simulator.vendors.state(vendor).keys() == before.keys()


def test_a_change_replaces_what_it_names_and_leaves_the_rest(simulator: Simulator) -> None:
    commits = simulator.vendors.state("github")["commits"]
    simulator.vendors.change("github", deployments=[{"sha": "f" * 40, "created_at": NOW}])
    state = simulator.vendors.state("github")
    assert [row["sha"] for row in state["deployments"]] == ["f" * 40]
    assert state["commits"] == commits


@pytest.mark.parametrize(
    ("vendor", "wrong"),
    [
        ("github", {"deployment": []}),
        ("github", {"deployments": [{"sha": "f"}]}),
        ("github", {"deployments": [{"sha": "f", "created_at": "2026-01-01T00:00:00"}]}),
        ("mux", {"mode": "sad"}),
        ("sentry", {"issues": [{"title": "t", "first_seen": "soon", "last_seen": "later"}]}),
        ("nobody", {}),
    ],
    ids=["unknown key", "missing field", "time without zone", "unknown mode", "no time", "unknown vendor"],
)
def test_a_change_with_a_slip_of_the_pen_is_refused_and_changes_nothing(
    simulator: Simulator, vendor: str, wrong: dict[str, Any]
) -> None:
    before = simulator.vendors.state("github")
    with pytest.raises(SandboxError):
        simulator.vendors.change(vendor, **wrong)
    assert simulator.vendors.state("github") == before


@pytest.mark.parametrize("name", ["sentry", "github", "stripe", "discord", "pagerduty"])
def test_no_vendors_credential_opens_the_control_side(simulator: Simulator, name: str) -> None:
    with pytest.raises(SandboxError):
        Vendors(simulator.url, getattr(Credentials.of("test"), name)).state("github")


def test_a_simulator_that_is_gone_is_an_error_with_a_remedy() -> None:
    with pytest.raises(SandboxError, match="runbook sandbox up"):
        Vendors(f"http://127.0.0.1:{free_port()}", "t").state("github")


def test_requests_are_remembered_as_the_vendor_saw_them(simulator: Simulator) -> None:
    simulator.ask("github", "GET", "/repos/acme/api/commits?per_page=1")
    simulator.ask("github", "GET", "/repos/acme/api/commits", headers={})
    first, second = simulator.vendors.requests("github")
    assert (first["method"], first["path"], first["query"], first["status"]) == (
        "GET", "/repos/acme/api/commits", "per_page=1", 200,
    )  # fmt: skip
    assert second["status"] == 401
    assert simulator.vendors.requests("sentry") == []


def test_two_simulators_do_not_know_each_others_credentials(simulator: Simulator) -> None:
    other = Credentials.of("another token")
    answer = read(simulator, "github", headers={"Authorization": f"Bearer {other.github}"})
    assert answer.status_code == 401


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", READS)
def test_a_credential_is_asked_for_where_the_vendor_asks_for_one(simulator: Simulator, vendor: str) -> None:
    open_to_all = vendor == "aws" or vendor.startswith("status.")
    assert read(simulator, vendor).status_code == 200
    assert read(simulator, vendor, headers={}).status_code == (200 if open_to_all else 401)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
@pytest.mark.parametrize("vendor", READS)
def test_a_status_is_answered_in_json_with_the_headers_given(simulator: Simulator, vendor: str, status: int) -> None:
    simulator.vendors.fail(vendor, status=status, headers={"Retry-After": "7"})
    answer = read(simulator, vendor)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
    assert answer.json()
    simulator.vendors.heal(vendor)
    assert read(simulator, vendor).status_code == 200


def test_a_header_given_stands_before_the_vendors_own(simulator: Simulator) -> None:
    simulator.vendors.fail("github", status=403, headers={"X-RateLimit-Remaining": "0"})
    assert read(simulator, "github").headers.get_list("x-ratelimit-remaining") == ["0"]


def test_a_body_given_goes_out_as_it_is(simulator: Simulator) -> None:
    simulator.vendors.fail("mux", status=400, body={"error": {"type": "x", "messages": ["Plan limit"]}})
    assert read(simulator, "mux").json()["error"]["messages"] == ["Plan limit"]
    simulator.vendors.fail("mux", status=502, body="bad gateway")
    assert read(simulator, "mux").text == "bad gateway"


@pytest.mark.parametrize("vendor", READS)
def test_html_instead_of_json(simulator: Simulator, vendor: str) -> None:
    simulator.vendors.fail(vendor, kind="html")
    answer = read(simulator, vendor)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<html>" in answer.text


@pytest.mark.parametrize("vendor", READS)
def test_a_truncated_answer_begins_well_and_is_no_json(simulator: Simulator, vendor: str) -> None:
    simulator.vendors.change("aws", events=[{"service": "s3", "at": NOW}])
    whole = read(simulator, vendor)
    simulator.vendors.fail(vendor, kind="truncated")
    half = read(simulator, vendor)
    assert half.status_code == 200
    assert 0 < len(half.content) < len(whole.content)
    with pytest.raises(ValueError):
        half.json()


def test_a_redirect_leads_to_another_host(simulator: Simulator) -> None:
    simulator.vendors.fail("github", kind="redirect")
    answer = read(simulator, "github")
    assert answer.is_redirect
    assert httpx.URL(answer.headers["location"]).host != "127.0.0.1"


def test_a_huge_answer_is_fifty_megabytes(simulator: Simulator) -> None:
    simulator.vendors.fail("mux", kind="huge")
    assert len(read(simulator, "mux").content) >= 49_000_000


def test_silence_answers_nothing_and_the_other_vendors_go_on(simulator: Simulator) -> None:
    simulator.vendors.fail("sentry", kind="silence")
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{simulator.url}/sentry{READS['sentry']}", timeout=0.3)
    assert read(simulator, "github").status_code == 200
    (request,) = simulator.vendors.requests("sentry")
    assert request["status"] is None


def test_a_delay_alone_answers_well_and_later(simulator: Simulator) -> None:
    simulator.vendors.fail("stripe", delay_seconds=0.4)
    begun = time.monotonic()
    assert read(simulator, "stripe").status_code == 200
    assert time.monotonic() - begun >= 0.4


def test_who_does_not_wait_for_an_answer_leaves_no_trouble(simulator: Simulator) -> None:
    simulator.vendors.fail("stripe", delay_seconds=0.3)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{simulator.url}/stripe/v1/charges", data={"amount": "1", "currency": "eur"}, timeout=0.05,
                   headers=simulator.authorization("stripe"))  # fmt: skip
    time.sleep(0.4)
    (request,) = simulator.vendors.requests("stripe")
    assert request["status"] is None
    # That nothing of it is in the log is checked at the simulator's end.


@pytest.mark.parametrize("vendor", ["stripe", "mux", "github"])
def test_a_root_can_be_probed_without_a_credential(simulator: Simulator, vendor: str) -> None:
    answer = simulator.ask(vendor, "HEAD", "/", headers={})
    assert (answer.status_code, answer.content) == (404, b"")


def test_a_failure_can_concern_one_path_only(simulator: Simulator) -> None:
    simulator.vendors.fail("github", status=500, path="/commits")
    assert read(simulator, "github").status_code == 200
    assert simulator.ask("github", "GET", "/repos/acme/api/commits").status_code == 500


def test_a_failure_can_end_by_itself(simulator: Simulator) -> None:
    simulator.vendors.fail("github", status=503, times=2)
    assert [read(simulator, "github").status_code for _ in range(3)] == [503, 503, 200]


def test_a_failure_can_meet_a_share_of_the_requests(simulator: Simulator) -> None:
    simulator.vendors.fail("stripe", status=503, share=0.3)
    assert sum(read(simulator, "stripe").status_code == 503 for _ in range(20)) == 6


def test_a_limit_used_up_refuses_until_reset(simulator: Simulator) -> None:
    simulator.vendors.change("github", requests_left=1)
    assert read(simulator, "github").headers["x-ratelimit-remaining"] == "0"
    refused = read(simulator, "github")
    assert (refused.status_code, refused.headers["x-ratelimit-remaining"]) == (403, "0")


# -- Stripe ----------------------------------------------------------------------------------------


def charge(simulator: Simulator, **form: str) -> httpx.Response:
    return simulator.ask("stripe", "POST", "/v1/charges", data={"amount": "1200", "currency": "eur", **form})


def test_a_charge_succeeds_and_is_listed(simulator: Simulator) -> None:
    made = charge(simulator).json()
    assert (made["object"], made["amount"], made["status"]) == ("charge", 1200, "succeeded")
    listed = simulator.ask("stripe", "GET", "/v1/charges").json()["data"]
    assert [one["id"] for one in listed] == [made["id"]]


def test_stripe_in_trouble_answers_as_told_while_its_root_answers(simulator: Simulator) -> None:
    simulator.vendors.change("stripe", mode="error", status=429, retry_after_seconds=30)
    refused = charge(simulator)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert simulator.ask("stripe", "GET", "/", headers={}).status_code == 404


def test_stripe_fails_for_a_share_of_the_charges(simulator: Simulator) -> None:
    simulator.vendors.change("stripe", mode="error", share=0.25)
    assert [charge(simulator).status_code for _ in range(8)].count(503) == 2


def test_a_declined_card_is_no_outage(simulator: Simulator) -> None:
    simulator.vendors.change("stripe", mode="declined")
    assert charge(simulator).status_code == 402


# -- Mux -------------------------------------------------------------------------------------------


class Receiver(ThreadingHTTPServer):
    """Takes webhooks; answers with the statuses given, then 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses: list[int] = []
        self.taken: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/webhooks/mux"

    def kinds(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.taken]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.headers["Mux-Signature"], body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def receiver(simulator: Simulator) -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    simulator.vendors.change("mux", webhook_url=server.url, transcode_seconds=0.05)
    yield server
    server.shutdown()
    server.server_close()


def create(simulator: Simulator, passthrough: str = "video:1", **more: Any) -> dict[str, Any]:
    body = {"input": [{"url": "https://bucket.example/v.mp4"}], "passthrough": passthrough, **more}
    answer = simulator.ask("mux", "POST", "/video/v1/assets", json=body)
    assert answer.status_code == 201
    asset: dict[str, Any] = answer.json()["data"]
    return asset


def status_of(simulator: Simulator, asset: dict[str, Any]) -> str:
    status: str = simulator.ask("mux", "GET", f"/video/v1/assets/{asset['id']}").json()["data"]["status"]
    return status


def test_an_asset_becomes_ready_and_its_webhook_is_signed(simulator: Simulator, receiver: Receiver) -> None:
    asset = create(simulator)
    assert asset["status"] == "preparing"
    wait_until(lambda: "video.asset.ready" in receiver.kinds())
    signature, body = receiver.taken[-1]
    parts = dict(part.split("=", 1) for part in signature.split(","))
    signed = f"{parts['t']}.".encode() + body
    assert parts["v1"] == hmac.new(simulator.known.mux_webhook.encode(), signed, hashlib.sha256).hexdigest()
    said = json.loads(body)["data"]
    assert (said["id"], said["status"], said["passthrough"]) == (asset["id"], "ready", "video:1")
    assert status_of(simulator, asset) == "ready"


def test_a_webhook_that_is_refused_is_sent_again(simulator: Simulator, receiver: Receiver) -> None:
    receiver.statuses = [500]
    create(simulator)
    wait_until(lambda: len(receiver.taken) == 3)
    bodies = [body for _, body in receiver.taken]
    assert bodies.count(bodies[0]) == 2


def test_lost_webhooks_leave_the_asset_ready(simulator: Simulator, receiver: Receiver) -> None:
    simulator.vendors.change("mux", webhooks=False)
    asset = create(simulator)
    wait_until(lambda: status_of(simulator, asset) == "ready")
    assert receiver.taken == []


def test_errored_assets_say_why_and_only_the_ones_meant(simulator: Simulator, receiver: Receiver) -> None:
    error = {"type": "invalid_input", "messages": ["No video track."]}
    simulator.vendors.change("mux", mode="errored", error=error, only="creator-7")
    bad = create(simulator, "v:1", meta={"creator_id": "creator-7"})
    good = create(simulator, "v:2", meta={"creator_id": "creator-8"})
    wait_until(lambda: status_of(simulator, bad) == "errored" and status_of(simulator, good) == "ready")
    shown = simulator.ask("mux", "GET", f"/video/v1/assets/{bad['id']}").json()["data"]
    assert shown["errors"] == error
    wait_until(lambda: {"video.asset.errored", "video.asset.ready"} <= set(receiver.kinds()))


def test_stuck_transcoding_goes_on_for_ever_for_the_ones_meant(simulator: Simulator, receiver: Receiver) -> None:
    simulator.vendors.change("mux", mode="stuck", only="creator-7")
    stuck = create(simulator, meta={"creator_id": "creator-7"})
    later = create(simulator)
    wait_until(lambda: status_of(simulator, later) == "ready")
    assert status_of(simulator, stuck) == "preparing"


def test_an_outage_refuses_everything_and_a_quota_only_what_is_new(simulator: Simulator) -> None:
    simulator.vendors.change("mux", mode="outage")
    assert read(simulator, "mux").status_code == 503
    simulator.vendors.change("mux", mode="quota")
    assert read(simulator, "mux").status_code == 200
    body = {"input": [{"url": "https://bucket.example/v.mp4"}]}
    assert simulator.ask("mux", "POST", "/video/v1/assets", json=body).status_code == 400


def test_a_direct_upload_becomes_an_asset(simulator: Simulator) -> None:
    simulator.vendors.change("mux", transcode_seconds=0.05)
    settings = {"new_asset_settings": {"passthrough": "v:9"}, "cors_origin": "https://app.example"}
    upload = simulator.ask("mux", "POST", "/video/v1/uploads", json=settings).json()["data"]
    assert httpx.put(upload["url"], content=b"video").status_code == 200
    after = simulator.ask("mux", "GET", f"/video/v1/uploads/{upload['id']}").json()["data"]
    assert after["status"] == "asset_created"
    wait_until(lambda: status_of(simulator, {"id": after["asset_id"]}) == "ready")


def test_a_reset_keeps_where_webhooks_go(simulator: Simulator, receiver: Receiver) -> None:
    simulator.vendors.change("mux", mode="outage")
    simulator.vendors.reset()
    state = simulator.vendors.state("mux")
    assert (state["mode"], state["webhook_url"]) == ("ok", receiver.url)


# -- Sentry ----------------------------------------------------------------------------------------


def event(**more: Any) -> dict[str, Any]:
    frames = [
        {"filename": "node:net", "function": "connect"},
        {"filename": "src/pay.ts", "lineno": 12, "function": "charge"},
    ]
    thrown = {"type": "PaymentError", "value": "no answer", "stacktrace": {"frames": frames}}
    return {"event_id": "e" * 32, "release": "api@2", "environment": "production", "transaction": "/pay",
            "user": {"id": "u1"}, "exception": {"values": [thrown]}, **more}  # fmt: skip


def envelope(*events: dict[str, Any]) -> bytes:
    lines = [json.dumps({"event_id": "e" * 32})]
    for one in events:
        lines += [json.dumps({"type": "event"}), json.dumps(one)]
    lines += [json.dumps({"type": "session"}), json.dumps({"sid": "1"})]
    return "\n".join(lines).encode()


def report(simulator: Simulator, content: bytes, kind: str = "envelope", **headers: str) -> httpx.Response:
    given = {"X-Sentry-Auth": f"Sentry sentry_version=7, sentry_key={simulator.known.sentry_ingest}", **headers}
    return httpx.post(f"{simulator.url}/sentry/api/1/{kind}/", content=content, headers=given)


def issues(simulator: Simulator, **asked: str) -> list[dict[str, Any]]:
    answer = simulator.ask("sentry", "GET", "/api/0/organizations/acme/issues/", params={"statsPeriod": "1h", **asked})
    found: list[dict[str, Any]] = answer.json()
    return found


def test_reported_errors_become_one_issue_with_its_count_and_users(simulator: Simulator) -> None:
    simulator.vendors.change("sentry", issues=[])
    for user in ("u1", "u2", "u1"):
        assert report(simulator, envelope(event(user={"id": user}))).status_code == 200
    (issue,) = issues(simulator)
    assert (issue["title"], issue["count"], issue["userCount"]) == ("PaymentError: no answer", "3", 2)
    by = simulator.ask("sentry", "GET", "/api/0/organizations/acme/events/?field=release&field=count()&statsPeriod=1h")
    assert by.json()["data"] == [{"release": "api@2", "count()": 3}]


def test_a_single_event_compressed_is_read_as_well(simulator: Simulator) -> None:
    simulator.vendors.change("sentry", issues=[])
    content = gzip.compress(json.dumps(event()).encode())
    assert report(simulator, content, "store", **{"Content-Encoding": "gzip"}).status_code == 200
    assert len(issues(simulator)) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"event_id":1}\n{"type":"event"}\nnot json'])
def test_a_report_that_is_malformed_is_refused(simulator: Simulator, content: bytes) -> None:
    assert report(simulator, content).status_code == 400


def test_a_report_with_another_key_is_refused(simulator: Simulator) -> None:
    answer = report(simulator, envelope(event()), **{"X-Sentry-Auth": "Sentry sentry_key=0"})
    assert answer.status_code == 403


def test_what_is_over_quota_is_counted_as_rate_limited_and_shows_in_no_issue(simulator: Simulator) -> None:
    simulator.vendors.change("sentry", issues=[], over_quota=True)
    assert report(simulator, envelope(event(), event())).status_code == 429
    assert issues(simulator) == []
    path = "/api/0/organizations/acme/stats_v2/?field=sum(quantity)&groupBy=outcome&statsPeriod=1h&category=error"
    groups = simulator.ask("sentry", "GET", path).json()["groups"]
    assert [(group["by"]["outcome"], group["totals"]["sum(quantity)"]) for group in groups] == [("rate_limited", 2)]


def test_issues_are_those_of_the_window_and_of_the_environment(simulator: Simulator) -> None:
    rows = [
        {"title": "now", "first_seen": NOW, "last_seen": NOW},
        {"title": "elsewhere", "first_seen": NOW, "last_seen": NOW, "environment": "staging"},
        {"title": "before", "first_seen": NOW - timedelta(days=1), "last_seen": NOW - timedelta(hours=2)},
        {"title": "done", "first_seen": NOW, "last_seen": NOW, "status": "resolved"},
    ]
    simulator.vendors.change("sentry", issues=rows)
    assert {issue["title"] for issue in issues(simulator, environment="production")} == {"now"}
    assert {issue["title"] for issue in issues(simulator, statsPeriod="1d", query="")} == {
        "now", "elsewhere", "before", "done",
    }  # fmt: skip


@pytest.mark.parametrize("asked", [{"statsPeriod": "soon"}, {"sort": "loudest"}])
def test_a_question_that_sentry_does_not_understand_is_refused(simulator: Simulator, asked: dict[str, str]) -> None:
    answer = simulator.ask("sentry", "GET", "/api/0/organizations/acme/issues/", params=asked)
    assert answer.status_code == 400


def test_sentrys_next_link_is_always_there_and_says_whether_it_leads_anywhere(simulator: Simulator) -> None:
    rows = [{"title": f"t{n}", "first_seen": NOW, "last_seen": NOW} for n in range(3)]
    simulator.vendors.change("sentry", issues=rows)
    first = simulator.ask("sentry", "GET", "/api/0/organizations/acme/issues/?limit=2")
    assert len(first.json()) == 2
    assert first.links["next"]["results"] == "true"
    second = httpx.get(first.links["next"]["url"], headers=simulator.authorization("sentry"))
    assert [issue["title"] for issue in second.json()] == ["t2"]
    assert second.links["next"]["results"] == "false"


# -- GitHub, Stream, PagerDuty, AWS ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("created", "names"),
    [
        (">=2026-11-02T00:00:00Z", {"b", "c"}),
        ("<2026-11-02T00:00:00Z", {"a"}),
        ("2026-11-01T00:00:00Z..2026-11-02T12:00:00Z", {"a", "b"}),
        ("2026-11-02T13:00:00Z..*", {"c"}),
        ("2026-11-02", {"b"}),
        ("whenever", set()),
    ],
)
def test_workflow_runs_are_found_by_a_range_of_times(simulator: Simulator, created: str, names: set[str]) -> None:
    runs = [{"sha": "f" * 40, "name": name, "created_at": f"2026-11-0{n}T12:00:00Z"} for n, name in enumerate("abc", 1)]
    simulator.vendors.change("github", workflow_runs=runs)
    found = simulator.ask("github", "GET", "/repos/acme/api/actions/runs", params={"created": created}).json()
    assert {run["name"] for run in found["workflow_runs"]} == names
    assert found["total_count"] == len(names)


@pytest.mark.parametrize(
    ("file", "body", "status"),
    [
        ("rollback.yml", {"ref": "main", "inputs": {"ref": "COMMIT"}}, 204),
        ("rollback.yml", {"ref": "main", "inputs": {"ref": "COMMIT"}, "return_run_details": True}, 200),
        ("rollback.yml", {"ref": "COMMIT"}, 422),
        ("rollback.yml", {"ref": "main", "inputs": {"commit": "COMMIT"}}, 422),
        ("rollback.yml", {"ref": "main", "inputs": {"ref": "0" * 40}}, 422),
        ("rollback.yml", {}, 422),
        ("other.yml", {"ref": "main"}, 404),
    ],
)
def test_a_workflow_is_started_on_a_branch_with_the_inputs_that_it_declares(
    simulator: Simulator, file: str, body: dict[str, Any], status: int
) -> None:
    state = simulator.vendors.state("github")
    older = state["commits"][1]["sha"]
    filled = json.loads(json.dumps(body).replace("COMMIT", older))
    path = f"/repos/acme/api/actions/workflows/{file}/dispatches"
    answer = simulator.ask("github", "POST", path, json=filled)
    assert answer.status_code == status, answer.text
    newest = simulator.vendors.state("github")["deployments"][0]
    started = answer.is_success
    assert (newest["sha"] == older, newest["state"]) == (started, "success")
    runs = simulator.ask("github", "GET", "/repos/acme/api/actions/runs").json()["workflow_runs"]
    assert (runs[0]["event"] == "workflow_dispatch") == started


@pytest.mark.parametrize(("days", "state", "status"), [(2, "completed", 201), (31, "completed", 403),
                                                       (2, "in_progress", 403)])  # fmt: skip
def test_a_run_is_run_again_for_a_month(simulator: Simulator, days: int, state: str, status: int) -> None:
    run = {"id": 5, "sha": "f" * 40, "created_at": NOW - timedelta(days=days), "status": state}
    simulator.vendors.change("github", workflow_runs=[run])
    answer = simulator.ask("github", "POST", "/repos/acme/api/actions/runs/5/rerun")
    assert answer.status_code == status
    assert simulator.vendors.state("github")["workflow_runs"][0]["attempt"] == (2 if status == 201 else 1)


def test_githubs_pages_are_linked(simulator: Simulator) -> None:
    commits = [{"sha": f"{n:040x}", "at": NOW - timedelta(minutes=n)} for n in range(5)]
    simulator.vendors.change("github", commits=commits)
    seen: list[str] = []
    url: str | None = f"{simulator.url}/github/repos/acme/api/commits?per_page=2"
    while url:
        answer = httpx.get(url, headers=simulator.authorization("github"))
        seen += [commit["sha"] for commit in answer.json()]
        url = answer.links.get("next", {}).get("url")
    assert seen == [commit["sha"] for commit in commits]


def test_streams_videos_are_found_by_state_creator_and_time(simulator: Simulator) -> None:
    videos = [
        {"uid": "a", "created": NOW - timedelta(minutes=5), "state": "error", "creator": "c7"},
        {"uid": "b", "created": NOW - timedelta(minutes=9), "state": "ready", "creator": "c7"},
        {"uid": "c", "created": NOW - timedelta(hours=9), "state": "error", "creator": "c8"},
    ]
    simulator.vendors.change("stream", videos=videos)

    def found(**asked: str) -> list[str]:
        path = f"/accounts/{simulator.settings['cloudflare']['account_id']}/stream"
        return [video["uid"] for video in simulator.ask("stream", "GET", path, params=asked).json()["result"]]

    assert found() == ["a", "b", "c"]
    assert found(status="error") == ["a", "c"]
    assert found(creator="c7", asc="true") == ["b", "a"]
    assert found(start=(NOW - timedelta(hours=1)).isoformat()) == ["a", "b"]


def test_an_expired_token_can_only_ask_about_itself(simulator: Simulator) -> None:
    simulator.vendors.change("stream", token_status="expired")
    assert read(simulator, "stream").json()["result"]["status"] == "expired"
    path = f"/accounts/{simulator.settings['cloudflare']['account_id']}/stream"
    assert simulator.ask("stream", "GET", path).status_code == 403


def test_an_event_opens_an_incident_once_and_closes_it(simulator: Simulator) -> None:
    def send(action: str) -> httpx.Response:
        payload = {"summary": "Error rate 12 %", "source": "runbook", "severity": "critical"}
        body = {"routing_key": simulator.known.pagerduty_routing, "event_action": action, "dedup_key": "k"}
        return simulator.ask("pagerduty", "POST", "/v2/enqueue", headers={}, json=body | {"payload": payload})

    def statuses() -> list[str]:
        found = read(simulator, "pagerduty").json()["incidents"]
        return [one["status"] for one in found if one["incident_key"] == "k"]

    assert [send("trigger").status_code, send("trigger").status_code] == [202, 202]
    assert statuses() == ["triggered"]
    send("resolve")
    assert statuses() == ["resolved"]


def test_awss_events_are_utf_16_with_a_mark(simulator: Simulator) -> None:
    simulator.vendors.change("aws", events=[{"service": "s3", "at": NOW, "summary": "Größere Störung"}])
    answer = read(simulator, "aws")
    assert answer.content[:2] == b"\xfe\xff"
    (listed,) = json.loads(answer.content)
    assert (listed["service"], listed["status"], listed["summary"]) == ("s3-us-east-1", "2", "Größere Störung")


def test_some_pages_tell_times_in_their_own_zone(simulator: Simulator) -> None:
    for page in ("stripe", "github"):
        simulator.vendors.change(f"status.{page}", incidents=[{"name": "x", "created_at": "2026-11-20T08:00:00Z"}])
    told = {page: simulator.ask(f"status.{page}", "GET", "/api/v2/incidents.json").json()["incidents"][0]["created_at"]
            for page in ("stripe", "github")}  # fmt: skip
    assert told == {"stripe": "2026-11-20T00:00:00.000-08:00", "github": "2026-11-20T08:00:00.000Z"}


def test_a_page_works_its_indicator_out_from_what_stands_on_it(simulator: Simulator) -> None:
    def indicator() -> str:
        said: str = read(simulator, "status.stripe").json()["status"]["indicator"]
        return said

    assert indicator() == "none"
    simulator.vendors.change("status.stripe", components=[{"name": "Checkout", "status": "degraded_performance"}])
    assert indicator() == "minor"
    simulator.vendors.change("status.stripe", incidents=[{"name": "x", "impact": "critical", "created_at": NOW}])
    assert indicator() == "critical"
    simulator.vendors.change("status.stripe", indicator="none")
    assert indicator() == "none"

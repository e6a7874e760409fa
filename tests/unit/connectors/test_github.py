"""What is made of GitHub's answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from runbook import settings
from runbook.connectors.github import GitHub
from tests.vendor_stub import SECRET, Asked, Stub, context, row, rows, serving

SINCE = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
REPO = "/repos/acme/api"


def github(stub: Stub, environment: str = "production") -> GitHub:
    section = settings.GitHub(
        base_url=stub.url, repository="acme/api", environment=environment, token=SecretStr(SECRET)
    )
    return GitHub(context(), section)


def deployment(number: int, minute: int) -> dict[str, Any]:
    return {"id": number, "sha": f"{number:040x}", "ref": "main", "environment": "production", "description": None,
            "creator": {"login": "octocat"}, "created_at": f"2026-11-20T08:{minute:02}:00Z",
            "payload": {"note": "kept out"}}  # fmt: skip


def status(number: int, state: str, at: str) -> dict[str, Any]:
    return {"id": number, "state": state, "created_at": at, "log_url": f"https://ci.example/{number}"}


def commit(number: int) -> dict[str, Any]:
    return {
        "sha": f"{number:040x}", "html_url": "https://x", "author": {"login": "octocat"},
        "commit": {"message": "Fix it\n\nSigned-off-by: Ann <ann@mail.example.org>",
                   "author": {"name": "Ann", "email": "ann@mail.example.org", "date": "2026-11-20T07:00:00Z"},
                   "committer": {"date": "2026-11-20T08:00:00Z"}},
    }  # fmt: skip


def test_deployments_come_newest_first_with_the_last_state() -> None:
    statuses = [status(2, "success", "2026-11-20T08:12:00Z"), status(1, "in_progress", "2026-11-20T08:11:00Z")]
    routes = {f"{REPO}/deployments": [deployment(1, 1), deployment(2, 10)]}
    routes |= {f"{REPO}/deployments/2/statuses": statuses, f"{REPO}/deployments/1/statuses": []}
    with serving(routes) as stub:
        found = rows(github(stub).deployments())
    assert [(item["id"], item["state"], item["finished_at"]) for item in found] == [
        (2, "success", "2026-11-20T08:12:00.000+00:00"), (1, "unknown", None),
    ]  # fmt: skip
    assert (found[0]["creator"], found[0]["url"]) == ("octocat", "https://ci.example/2")
    assert stub.asked[0].query["environment"] == ["production"]


def test_a_superseded_deployment_still_says_when_it_succeeded() -> None:
    statuses = [status(9, "inactive", "2026-11-20T09:30:00Z"), status(2, "success", "2026-11-20T08:12:00Z")]
    with serving({f"{REPO}/deployments": [deployment(1, 1)], f"{REPO}/deployments/1/statuses": statuses}) as stub:
        found = row(github(stub).deployments())
    assert (found["state"], found["finished_at"]) == ("inactive", "2026-11-20T08:12:00.000+00:00")


def test_statuses_are_asked_of_the_five_newest_and_a_failure_among_them_is_said() -> None:
    routes: dict[str, Any] = {f"{REPO}/deployments": [deployment(n, n) for n in range(1, 9)]}
    for n in range(1, 9):
        routes[f"{REPO}/deployments/{n}/statuses"] = [status(n, "success", "2026-11-20T09:00:00Z")]
    routes[f"{REPO}/deployments/8/statuses"] = (404, {"message": "Not Found"}, {})
    with serving(routes) as stub:
        reading = github(stub).deployments()
    assert [item["state"] for item in rows(reading, "partial")] == ["unknown"] + ["success"] * 4 + ["unknown"] * 3
    assert reading.reason.startswith("status of 1 of 5 not read")
    assert len(stub.asked) == 6


def test_a_state_that_is_new_to_us_is_unknown() -> None:
    statuses = [status(1, "frozen", "2026-11-20T08:12:00Z")]
    with serving({f"{REPO}/deployments": [deployment(1, 1)], f"{REPO}/deployments/1/statuses": statuses}) as stub:
        assert row(github(stub).deployments())["state"] == "unknown"


def test_pages_are_read_to_their_end_and_the_cap_is_said() -> None:
    def commits(asked: Asked) -> Any:
        page = int(asked.first("page") or 1)
        link = f'<{stub.url}{REPO}/commits?page={page + 1}>; rel="next", <{stub.url}{REPO}/commits?page=9>; rel="last"'
        return 200, [commit(page)], {"Link": link} if page < last else {}

    with serving({f"{REPO}/commits": commits}) as stub:
        last = 2
        assert len(rows(github(stub).commits(SINCE))) == 2
        last = 9
        reading = github(stub).commits(SINCE, name="commits_long")
    assert (len(rows(reading, "partial")), reading.name) == (3, "commits_long")
    assert reading.reason == "only the newest 3 commits were read, there are more"
    assert stub.asked[0].query["since"] == ["2026-11-20T09:00:00Z"]


def test_a_page_that_fails_leaves_what_was_read_before_it() -> None:
    def commits(asked: Asked) -> Any:
        if asked.first("page"):
            return 403, {"message": "API rate limit exceeded"}, {"x-ratelimit-remaining": "0"}
        return 200, [commit(1)], {"Link": f'<{stub.url}{REPO}/commits?page=2>; rel="next"'}

    with serving({f"{REPO}/commits": commits}) as stub:
        reading = github(stub).commits(SINCE)
    assert len(rows(reading, "partial")) == 1
    assert "rate limit" in reading.reason


def test_a_commit_keeps_its_first_line_and_no_address() -> None:
    with serving({f"{REPO}/commits": [commit(1)]}) as stub:
        reading = github(stub).commits(SINCE)
    found = row(reading)
    assert (found["message"], found["author"], found["at"]) == ("Fix it", "octocat", "2026-11-20T08:00:00.000+00:00")
    assert "ann@" not in str(reading.as_dict())


def test_workflow_runs_since_the_windows_start() -> None:
    run = {"id": 5, "name": "deploy", "head_sha": "abc", "head_branch": "main", "event": "push", "status": "completed",
           "conclusion": "failure", "run_attempt": 2, "created_at": "2026-11-20T09:10:00Z",
           "run_started_at": "2026-11-20T09:10:05Z", "updated_at": "2026-11-20T09:12:00Z", "html_url": "https://x/5",
           "head_commit": {"author": {"email": "ann@mail.example.org"}}}  # fmt: skip
    with serving({f"{REPO}/actions/runs": {"total_count": 1, "workflow_runs": [run]}}) as stub:
        found = row(github(stub).workflow_runs(SINCE))
    assert stub.asked[0].query["created"] == [">=2026-11-20T09:00:00Z"]
    assert (found["name"], found["conclusion"], found["attempt"]) == ("deploy", "failure", 2)
    assert "ann@" not in str(found)


@pytest.mark.parametrize(
    ("filename", "is_migration"),
    [
        ("prisma/migrations/20261120_add/migration.sql", True),
        ("db/migrate/20261120_add.rb", True),
        ("src/app/migrations/0002_add.py", True),
        ("alembic/versions/9f_add.py", True),
        ("src/main/resources/db/migration/V2__add.sql", True),
        ("db/changelog/changes-2.xml", True),
        ("db_migrations/2.sql", True),
        ("docs/migration-guide.md", False),
        ("src/migrate.ts", False),
        ("src/pay.ts", False),
        ("CHANGELOG.md", False),
    ],
)
def test_a_comparison_names_the_migrations(filename: str, is_migration: bool) -> None:
    body = {"status": "ahead", "ahead_by": 1, "total_commits": 1, "commits": [commit(1)],
            "files": [{"filename": filename, "status": "added", "changes": 3, "patch": "+secret"}]}  # fmt: skip
    with serving({f"{REPO}/compare/v1...feature/x": body}) as stub:
        found = row(github(stub).compare("v1", "feature/x"))
    assert found["migrations"] == ([filename] if is_migration else [])
    assert found["files"] == [{"filename": filename, "status": "added", "changes": 3}]
    assert stub.asked[0].raw_path == f"{REPO}/compare/v1...feature%2Fx"


def test_a_comparison_with_as_many_files_as_github_lists_may_hide_a_migration() -> None:
    files = [{"filename": f"f{n}", "status": "added", "changes": 1} for n in range(300)]
    with serving({f"{REPO}/compare/a...b": {"status": "ahead", "commits": [], "files": files}}) as stub:
        reading = github(stub).compare("a", "b")
    assert reading.state == "partial"
    assert "300 files" in reading.reason


def test_without_settings_nothing_is_asked_and_the_setting_is_named() -> None:
    assert GitHub(context(), settings.GitHub(repository="a/b")).deployments().reason == "github.token is not set"
    reading = GitHub(context(), settings.GitHub(token=SecretStr(SECRET))).commits(SINCE)
    assert (reading.state, reading.reason) == ("not_configured", "github.repository is not set")

"""GitHub's API: what was deployed when and how that ended, what ran, what was committed.

A deployment near an incident is a hint and no proof. It reads only; a rollback is proposed elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from runbook.connectors.answers import (
    collected,
    fetched,
    first_line,
    inside,
    instant,
    iso,
    known,
    objects,
    text,
    together,
    unread,
    whole,
    zulu,
)
from runbook.connectors.base import Context, Failure, Fetched
from runbook.connectors.http import Exchange, HttpConnector, as_object, as_rows, segment, shown
from runbook.result import Reading
from runbook.settings import GitHub as Section

DEPLOYMENTS = 20
DEPLOYMENTS_WITH_STATUS = 5
"""The newest ones, whose statuses are asked for; each takes a request."""
PAGE = 100
PAGES = 3
COMPARED_COMMITS = 50
MAX_FILES = 300
"""GitHub lists no more files of a comparison."""
_STATES = {
    name: name for name in ("error", "failure", "inactive", "in_progress", "pending", "queued", "success")
}  # fmt: skip
_ENDED = ("success", "failure", "error")
_MIGRATION = re.compile(r"(?i)(?:^|/)(?:(?:\w+[_-])?migrations?|migrate|alembic/versions|changelogs?)/.+\.\w+$")


class GitHub(HttpConnector):
    """One repository."""

    source = "github"

    def __init__(self, context: Context, section: Section) -> None:
        token = section.token.get_secret_value() if section.token else ""
        super().__init__(
            context,
            section.base_url,
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            lacking="" if token and section.repository else "github.repository" if token else "github.token",
        )
        self._root = "/repos/" + "/".join(segment(part) for part in section.repository.strip("/").split("/"))
        self._environment = section.environment or None

    def deployments(self) -> Reading:
        """``deployments``: the newest, newest first; ``state`` of the first :data:`DEPLOYMENTS_WITH_STATUS`.

        ``state`` is ``unknown`` for the others and for one that has no status. ``finished_at`` is when it succeeded or
        failed, also where a newer deployment has made it inactive since.
        """
        path = f"{self._root}/deployments"
        params = {"environment": self._environment, "per_page": DEPLOYMENTS}

        def take(exchange: Exchange) -> Fetched:
            found = as_rows(exchange.get(path, params).value)
            found.sort(key=lambda item: (iso(item.get("created_at")) or "", whole(item.get("id")) or 0), reverse=True)
            newest = found[:DEPLOYMENTS_WITH_STATUS]
            statuses = together(self, newest, lambda item: self._statuses(exchange, item))
            reached: list[list[dict[str, Any]]] = [[] if isinstance(s, Failure) else s for s in statuses]
            reached += [[] for _ in found[DEPLOYMENTS_WITH_STATUS:]]
            rows = [_deployment(item, history) for item, history in zip(found, reached, strict=True)]
            return fetched(rows, unread(statuses, "status"))

        return self.gather("deployments", shown(path, params), take)

    def workflow_runs(self, since: datetime) -> Reading:
        """``workflow_runs``: runs of GitHub Actions created since then, newest first."""
        path = f"{self._root}/actions/runs"
        params: dict[str, Any] = {"created": f">={zulu(since)}", "per_page": PAGE}

        def take(exchange: Exchange) -> Fetched:
            pages = ((as_rows(answer.object.get("workflow_runs")), cut)
                     for answer, cut in exchange.pages(path, params, most=PAGES))  # fmt: skip
            found, missing = collected(self, pages, "workflow runs")
            return fetched([_run(item) for item in found], missing)

        return self.gather("workflow_runs", shown(path, params), take, limit_seconds=8)

    def commits(self, since: datetime, name: str = "commits") -> Reading:
        """Commits of the default branch since then, newest first."""
        path = f"{self._root}/commits"
        params: dict[str, Any] = {"since": zulu(since), "per_page": PAGE}

        def take(exchange: Exchange) -> Fetched:
            pages: Iterator[tuple[list[dict[str, Any]], bool]] = (
                (as_rows(answer.value), cut) for answer, cut in exchange.pages(path, params, most=PAGES)
            )
            found, missing = collected(self, pages, "commits")
            return fetched([_commit(item) | {"url": text(item.get("html_url"))} for item in found], missing)

        return self.gather(name, shown(path, params), take, limit_seconds=8)

    def compare(self, base: str, head: str) -> Reading:
        """``compare``: what lies between two revisions, with the files that look like database migrations.

        The newest :data:`COMPARED_COMMITS` commits are kept; ``total_commits`` counts all.
        """
        path = f"{self._root}/compare/{segment(base)}...{segment(head)}"

        def take(exchange: Exchange) -> Fetched:
            row = _comparison(exchange.get(path).object)
            cut = f"only {MAX_FILES} files are listed, a migration may be among the others"
            return fetched(row, cut if len(row["files"]) >= MAX_FILES else "")

        return self.gather("compare", shown(path), take)

    def _statuses(self, exchange: Exchange, deployment: dict[str, Any]) -> list[dict[str, Any]]:
        path = f"{self._root}/deployments/{segment(deployment.get('id'))}/statuses"
        return as_rows(exchange.get(path, {"per_page": PAGE}).value)


def _deployment(item: dict[str, Any], statuses: list[dict[str, Any]]) -> dict[str, Any]:
    history = sorted(statuses, key=lambda status: (iso(status.get("created_at")) or "", whole(status.get("id")) or 0))
    last: dict[str, Any] = history[-1] if history else {}
    ended: dict[str, Any] = next((status for status in reversed(history) if status.get("state") in _ENDED), {})
    return {
        "id": whole(item.get("id")),
        "sha": text(item.get("sha")),
        "ref": text(item.get("ref")),
        "environment": text(item.get("environment")),
        "creator": text(inside(item, "creator", "login")),
        "created_at": iso(item.get("created_at")),
        "state": known(last.get("state"), _STATES, "unknown"),
        "finished_at": iso(ended.get("created_at")),
        "description": first_line(item.get("description")),
        "url": text(last.get("log_url") or last.get("target_url")),
    }


def _run(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": whole(item.get("id")),
        "name": text(item.get("name")),
        "sha": text(item.get("head_sha")),
        "branch": text(item.get("head_branch")),
        "event": text(item.get("event")),
        "status": text(item.get("status")) or "unknown",
        "conclusion": text(item.get("conclusion")),
        "attempt": whole(item.get("run_attempt")),
        "created_at": iso(item.get("created_at")),
        "started_at": iso(item.get("run_started_at")),
        "updated_at": iso(item.get("updated_at")),
        "url": text(item.get("html_url")),
    }


def _commit(item: dict[str, Any]) -> dict[str, Any]:
    commit = as_object(item.get("commit"))
    at = instant(inside(commit, "committer", "date")) or instant(inside(commit, "author", "date"))
    return {
        "sha": text(item.get("sha")),
        "at": iso(at),
        "author": text(inside(item, "author", "login")) or text(inside(commit, "author", "name")),
        "message": first_line(commit.get("message")),
    }


def _comparison(value: dict[str, Any]) -> dict[str, Any]:
    files = objects(value.get("files"))
    names = [name for file in files if (name := text(file.get("filename")))]
    return {
        "status": text(value.get("status")) or "unknown",
        "ahead_by": whole(value.get("ahead_by")),
        "total_commits": whole(value.get("total_commits")),
        "commits": [_commit(item) for item in objects(value.get("commits"))[-COMPARED_COMMITS:]],
        "files": [
            {"filename": text(f.get("filename")), "status": text(f.get("status")), "changes": whole(f.get("changes"))}
            for f in files
        ],
        "migrations": [name for name in names if _MIGRATION.search(name)],
    }

"""What was deployed to an environment, in its order, and what starts a deployment, for who rolls one back.

Everything is read from the repository and the environment of the settings, and from no other one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from runbook.actions.attempts import instant
from runbook.actions.http_acting import ActingApi
from runbook.actions.plan import Refused
from runbook.connectors.base import Context
from runbook.connectors.github import GitHub
from runbook.connectors.http import segment
from runbook.diagnosis.errors.changes import same_release
from runbook.redaction import Redactor

if TYPE_CHECKING:
    from runbook.settings import Settings

DEPLOYMENTS = 20
"""So far back, and no further, a deployment is looked for; each takes a request."""
RERUN_DAYS = 30
"""GitHub runs nothing again that is older. Source: contracts, section 2."""
UNDER_WAY = frozenset({"queued", "pending", "in_progress"})
_RUN = re.compile(r"/actions/runs/(\d+)")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One deployment of the environment."""

    id: int
    sha: str
    ref: str
    at: str
    #: State of its newest status; ``unknown`` without any.
    state: str
    #: Whether it succeeded at any time.
    succeeded: bool
    #: The run of GitHub Actions that deployed it, where its statuses name one.
    run: int | None

    @property
    def shown(self) -> str:
        return f"{self.sha[:12]} ({self.ref})" if self.ref and self.ref != self.sha else self.sha[:12]

    def is_of(self, release: str) -> bool:
        """Whether a commit, a tag or the name of a release means this one."""
        return same_release(self.sha, release) or same_release(self.ref, release)


class Repository:
    """The repository and environment of the settings.

    Raises
    ------
    Refused
        A setting is lacking.
    """

    def __init__(self, settings: Settings) -> None:
        section = self._section = settings.github
        token = section.action_token.get_secret_value() if section.action_token else ""
        needed = {"action_token": token, "repository": section.repository, "environment": section.environment}
        lacking = next((f"github.{name}" for name, value in needed.items() if not value), "")
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json",
                   "X-GitHub-Api-Version": "2022-11-28"}  # fmt: skip
        self.api = ActingApi("GitHub", section.base_url, headers=headers, secrets=[token], lacking=lacking)
        self.name, self.environment = section.repository.strip("/"), section.environment
        self._root = "/repos/" + "/".join(segment(part) for part in self.name.split("/"))
        self._redactor = Redactor([token])

    # -- looking ------------------------------------------------------------------------------------------------------

    def deployments(self) -> Iterator[Deployment]:
        """The deployments of the environment, newest first; their statuses are asked for one by one."""
        params: dict[str, str | int] = {"environment": self.environment, "per_page": DEPLOYMENTS}
        rows = self.api.look_rows(f"{self._root}/deployments", params)
        rows.sort(key=lambda row: (str(row.get("created_at") or ""), int(row.get("id") or 0)), reverse=True)
        for row in rows:
            yield self._deployment(row)

    def newest(self) -> Deployment:
        """The newest one.

        Raises
        ------
        Refused
            There is none.
        """
        found = next(self.deployments(), None)
        if found is None:
            raise Refused(f"{self.name} has no deployment to {self.environment}")
        return found

    def migrations(self, good: str, bad: str) -> tuple[list[str] | None, str]:
        """Files between two commits that look like migrations, and why that is not known (``None``).

        GitHub lists what one side has changed since both had the same commit: where they went apart, both are asked.
        """
        vendor = GitHub(Context(redactor=self._redactor), self._section)
        found: list[str] = []
        for base, head in ((good, bad), (bad, good)):
            reading = vendor.compare(base, head)
            row = reading.value if isinstance(reading.value, dict) else {}
            found += [str(name) for name in row.get("migrations") or []]
            if reading.state != "ok" and not found:
                return None, reading.reason
            if row.get("status") in ("ahead", "identical"):
                break
        return list(dict.fromkeys(found)), ""

    def default_branch(self) -> str:
        """The branch that a workflow is started from: GitHub starts only what stands on it."""
        branch = self.api.look_object(self._root).get("default_branch")
        if not isinstance(branch, str) or not branch:
            raise Refused(f"GitHub names no default branch of {self.name}")
        return branch

    def workflow(self, name: str) -> str:
        """The file of a workflow that can be started, by its file's name.

        Raises
        ------
        Refused
            There is none, or it is switched off.
        """
        rows = self.api.look_rows(f"{self._root}/actions/workflows", {"per_page": 100}, under="workflows")
        file = name.rpartition("/")[2]
        row = next((row for row in rows if str(row.get("path", "")).rpartition("/")[2] == file), None)
        if row is None:
            raise Refused(f"{self.name} has no workflow {file}", remedy="Correct github.rollback_workflow")
        if row.get("state") != "active":
            raise Refused(f"workflow {file} is {row.get('state')}", remedy="Enable it on GitHub")
        return file

    def run(self, number: int) -> Mapping[str, Any]:
        """One run of GitHub Actions."""
        return self.api.look_object(f"{self._root}/actions/runs/{number}")

    def why_not_again(self, one: Deployment) -> str:
        """Why the run of a deployment cannot be run again; empty when it can."""
        if one.run is None:
            return f"the statuses of the deployment of {one.shown} name no run of GitHub Actions"
        run = self.run(one.run)
        if run.get("head_sha") != one.sha:
            return f"run {one.run} was of another commit than {one.shown}"
        if run.get("status") != "completed":
            return f"run {one.run} is {run.get('status')}"
        if instant(run.get("created_at")) < datetime.now(UTC) - timedelta(days=RERUN_DAYS):
            return f"run {one.run} is older than {RERUN_DAYS} days, and GitHub runs it no more"
        return ""

    # -- starting -----------------------------------------------------------------------------------------------------

    def dispatch(self, file: str, branch: str, commit: str) -> str:
        """Start a workflow that deploys ``commit``; the id of its run, empty where GitHub does not tell it."""
        body = {"ref": branch, "inputs": {"ref": commit}, "return_run_details": True}
        said = self.api.send("POST", f"{self._root}/actions/workflows/{segment(file)}/dispatches", body)
        return str(said.get("workflow_run_id") or "") if isinstance(said, dict) else ""

    def run_again(self, number: int) -> str:
        """Run a run again; its id."""
        self.api.send("POST", f"{self._root}/actions/runs/{number}/rerun")
        return str(number)

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _deployment(self, row: Mapping[str, Any]) -> Deployment:
        path = f"{self._root}/deployments/{segment(row.get('id'))}/statuses"
        statuses = self.api.look_rows(path, {"per_page": 100})
        statuses.sort(key=lambda one: (str(one.get("created_at") or ""), int(one.get("id") or 0)))
        urls = (str(one.get("log_url") or one.get("target_url") or "") for one in reversed(statuses))
        run = next((match for url in urls if (match := _RUN.search(url))), None)
        return Deployment(
            id=int(row.get("id") or 0),
            sha=str(row.get("sha") or ""),
            ref=str(row.get("ref") or ""),
            at=str(row.get("created_at") or ""),
            state=str(statuses[-1].get("state")) if statuses else "unknown",
            succeeded=any(one.get("state") == "success" for one in statuses),
            run=int(run[1]) if run else None,
        )

"""GitHub's objects in the shapes of its published specification, every required field present."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from runbook.sandbox.vendors.base import number

if TYPE_CHECKING:
    from runbook.sandbox.vendors.github import Commit, Deployment, File, Workflow, WorkflowRun

#: What a repository's object links to, by field; those with a template part end in it.
_REPOSITORY_URLS = (
    "archive_url", "assignees_url", "blobs_url", "branches_url", "collaborators_url", "comments_url", "commits_url",
    "compare_url", "contents_url", "contributors_url", "deployments_url", "downloads_url", "events_url", "forks_url",
    "git_commits_url", "git_refs_url", "git_tags_url", "hooks_url", "issue_comment_url", "issue_events_url",
    "issues_url", "keys_url", "labels_url", "languages_url", "merges_url", "milestones_url", "notifications_url",
    "pulls_url", "releases_url", "stargazers_url", "statuses_url", "subscribers_url", "subscription_url", "tags_url",
    "teams_url", "trees_url",
)  # fmt: skip
_USER_URLS = (
    "followers", "following", "gists", "starred", "subscriptions", "organizations", "repos", "events",
    "received_events",
)  # fmt: skip


_ORDER = {"queued": 1, "pending": 1, "in_progress": 2, "success": 3, "failure": 3, "error": 3, "inactive": 4}
"""Statuses of one deployment have rising numbers, also where two have the same second."""


class Shapes:
    """Objects of one repository.

    Parameters
    ----------
    api
        Base address of the API.
    repository
        ``owner/name``.
    """

    def __init__(self, api: str, repository: str) -> None:
        self._site = api
        self._repository = repository
        self._root = f"{api}/repos/{repository}"
        self._page = f"https://github.example/{repository}"

    def deployment(self, one: Deployment) -> dict[str, Any]:
        """A deployment."""
        url = f"{self._root}/deployments/{one.identity}"
        return {
            "url": url,
            "id": one.identity,
            "node_id": _node(one.identity),
            "sha": one.sha,
            "ref": one.ref,
            "task": "deploy",
            "payload": {},
            "original_environment": one.environment,
            "environment": one.environment,
            "description": one.description,
            "creator": self._user(one.creator),
            "created_at": _second(one.created_at),
            "updated_at": _second(one.finished_at or one.created_at),
            "statuses_url": f"{url}/statuses",
            "repository_url": self._root,
            "transient_environment": False,
            "production_environment": one.environment == "production",
            "performed_via_github_app": None,
        }

    def status(self, one: Deployment, run: int | None, state: str, at: datetime) -> dict[str, Any]:
        """One status of a deployment, with the run of GitHub Actions that deployed it."""
        deployment = f"{self._root}/deployments/{one.identity}"
        identity = number(str(one.identity)) * 10 + _ORDER.get(state, 0)
        log = f"{self._page}/actions/runs/{run}" if run is not None else ""
        return {
            "url": f"{deployment}/statuses/{identity}",
            "id": identity,
            "node_id": _node(identity),
            "state": state,
            "creator": self._user(one.creator),
            "description": "",
            "environment": one.environment,
            "target_url": log,
            "created_at": _second(at),
            "updated_at": _second(at),
            "deployment_url": deployment,
            "repository_url": self._root,
            "environment_url": "https://app.example/",
            "log_url": log,
            "performed_via_github_app": None,
        }

    def run(self, run: WorkflowRun) -> dict[str, Any]:
        """A workflow run."""
        url = f"{self._root}/actions/runs/{run.identity}"
        workflow = number(run.name)
        ended = run.updated_at or run.created_at + timedelta(minutes=3)
        return {
            "id": run.identity,
            "name": run.name,
            "node_id": _node(run.identity),
            "check_suite_id": run.identity,
            "head_branch": run.branch,
            "head_sha": run.sha,
            "path": f".github/workflows/{run.name}.yml",
            "run_number": workflow % 1000,
            "run_attempt": run.attempt,
            "referenced_workflows": [],
            "event": run.event,
            "status": run.status,
            "conclusion": run.conclusion if run.status == "completed" else None,
            "workflow_id": workflow,
            "url": url,
            "html_url": f"{self._page}/actions/runs/{run.identity}",
            "pull_requests": [],
            "created_at": _second(run.created_at),
            "updated_at": _second(ended),
            "run_started_at": _second(run.created_at + timedelta(seconds=5)),
            "actor": self._user("deployer"),
            "triggering_actor": self._user("deployer"),
            **{f"{name}_url": f"{url}/{name}" for name in ("jobs", "logs", "artifacts", "cancel", "rerun")},
            "check_suite_url": f"{self._root}/check-suites/{run.identity}",
            "previous_attempt_url": None,
            "workflow_url": f"{self._root}/actions/workflows/{workflow}",
            "head_commit": None,
            "repository": self._repository_object(),
            "head_repository": self._repository_object(),
            "display_title": run.name,
        }

    def workflow(self, one: Workflow) -> dict[str, Any]:
        """A workflow."""
        path = f".github/workflows/{one.name}.yml"
        return {
            "id": one.identity,
            "node_id": _node(one.identity),
            "name": one.name,
            "path": path,
            "state": one.state,
            "created_at": "2024-01-01T00:00:00Z",
            "updated_at": "2024-01-01T00:00:00Z",
            "url": f"{self._root}/actions/workflows/{one.identity}",
            "html_url": f"{self._page}/blob/main/{path}",
            "badge_url": f"{self._page}/workflows/{one.name}/badge.svg",
        }

    def dispatched(self, run: WorkflowRun) -> dict[str, Any]:
        """What is said of a workflow that was started."""
        return {
            "workflow_run_id": run.identity,
            "run_url": f"{self._root}/actions/runs/{run.identity}",
            "html_url": f"{self._page}/actions/runs/{run.identity}",
        }

    def repository(self) -> dict[str, Any]:
        """The repository."""
        return self._repository_object() | {"default_branch": "main"}

    def commit(self, commit: Commit, parent: str | None) -> dict[str, Any]:
        """A commit without its files."""
        person = {"name": commit.author, "email": f"{commit.author}@acme.example", "date": _second(commit.at)}
        user = self._user(commit.author)
        tree = f"{number(commit.sha):08x}" * 5
        return {
            "url": f"{self._root}/commits/{commit.sha}",
            "sha": commit.sha,
            "node_id": _node(commit.sha),
            "html_url": f"{self._page}/commit/{commit.sha}",
            "comments_url": f"{self._root}/commits/{commit.sha}/comments",
            "commit": {
                "url": f"{self._root}/git/commits/{commit.sha}",
                "author": person,
                "committer": person,
                "message": commit.message,
                "comment_count": 0,
                "tree": {"sha": tree, "url": f"{self._root}/git/trees/{tree}"},
                "verification": {
                    "verified": False, "reason": "unsigned", "payload": None, "signature": None, "verified_at": None,
                },
            },
            "author": user,
            "committer": user,
            "parents": [{"sha": parent, "url": f"{self._root}/commits/{parent}"}] if parent else [],
        }  # fmt: skip

    def file(self, file: File) -> dict[str, Any]:
        """A changed file."""
        return {
            "sha": f"{number(file.filename):08x}" * 5,
            "filename": file.filename,
            "status": file.status,
            "additions": file.changes,
            "deletions": 0,
            "changes": file.changes,
            "blob_url": f"{self._page}/blob/main/{file.filename}",
            "raw_url": f"{self._page}/raw/main/{file.filename}",
            "contents_url": f"{self._root}/contents/{file.filename}",
        }

    def comparison_urls(self, base: str, head: str) -> dict[str, str]:
        """The addresses that a comparison names itself by."""
        page = f"{self._page}/compare/{base}...{head}"
        return {
            "url": f"{self._root}/compare/{base}...{head}",
            "html_url": page,
            "permalink_url": page,
            "diff_url": f"{page}.diff",
            "patch_url": f"{page}.patch",
        }

    def environment(self, name: str) -> dict[str, Any]:
        """An environment that deployments go to."""
        return {
            "id": number(name),
            "node_id": _node(name),
            "name": name,
            "url": f"{self._root}/environments/{name}",
            "html_url": f"{self._page}/deployments/activity_log?environments_filter={name}",
            "created_at": "2024-01-01T00:00:00Z",
            "updated_at": "2024-01-01T00:00:00Z",
            "protection_rules": [],
            "deployment_branch_policy": None,
        }

    def _user(self, login: str) -> dict[str, Any]:
        url = f"{self._site}/users/{login}"
        return {
            "login": login,
            "id": number(login),
            "node_id": _node(login),
            "avatar_url": f"https://avatars.example/{login}",
            "gravatar_id": "",
            "url": url,
            "html_url": f"https://github.example/{login}",
            **{f"{name}_url": f"{url}/{name}" for name in _USER_URLS},
            "type": "User",
            "site_admin": False,
        }

    def _repository_object(self) -> dict[str, Any]:
        owner, name = self._repository.split("/")
        return {
            "id": number(self._repository),
            "node_id": _node(self._repository),
            "name": name,
            "full_name": self._repository,
            "owner": self._user(owner),
            "private": True,
            "html_url": self._page,
            "description": None,
            "fork": False,
            "url": self._root,
            **{field: f"{self._root}/{field.removesuffix('_url')}" for field in _REPOSITORY_URLS},
        }


def _node(about: object) -> str:
    return f"N_{number(str(about)):08x}"


def _second(moment: datetime) -> str:
    """GitHub says no fractions of a second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

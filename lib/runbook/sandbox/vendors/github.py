"""GitHub: deployments with their statuses, workflows and their runs, commits and comparisons of one repository.

The history is one line, newest first; a comparison is a stretch of it. A workflow that is started with the input
``ref``, or a run of ``deploy`` that is run again, deploys that commit at once, with whatever end the facts say; where
an application is told of, what it runs changes then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, Field

from runbook.sandbox.vendors.base import Facts, Route, Row, Vendor, instant, json_object, now, number, same, whole
from runbook.sandbox.vendors.credentials import ENVIRONMENT, REPOSITORY, Credentials
from runbook.sandbox.vendors.deploying import deliver
from runbook.sandbox.vendors.github_shapes import Shapes

LIMIT = 5000
_COMPARED_FILES = 300
_RERUN_DAYS = 30
_WORDS = {
    401: "Bad credentials",
    403: "Resource not accessible by personal access token",
    404: "Not Found",
    422: "Unexpected inputs provided, or no such ref",
    429: "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
}
DeploymentState = Literal["error", "failure", "inactive", "pending", "success", "queued", "in_progress"]


class File(Row):
    """One file of a commit."""

    filename: str
    status: Literal["added", "removed", "modified", "renamed"] = "modified"
    changes: int = 10


class Commit(Row):
    """One commit on the main branch."""

    sha: str
    at: AwareDatetime
    author: str = "dev"
    message: str = "Change"
    files: list[File] = Field(default_factory=list)


class Deployment(Row):
    """One deployment and how it ended."""

    sha: str
    id: int = 0
    ref: str = "main"
    environment: str = ENVIRONMENT
    creator: str = "deployer"
    created_at: AwareDatetime
    state: DeploymentState = "success"
    #: When it succeeded or failed; ``None`` = three minutes after it began, where it has ended.
    finished_at: AwareDatetime | None = None
    description: str | None = None

    @property
    def identity(self) -> int:
        """Its number."""
        return self.id or number(f"{self.sha}{self.created_at}")


class WorkflowRun(Row):
    """One run of a workflow."""

    sha: str
    id: int = 0
    name: str = "deploy"
    branch: str = "main"
    event: str = "push"
    status: Literal["queued", "in_progress", "completed", "waiting", "requested", "pending"] = "completed"
    conclusion: (
        Literal["success", "failure", "cancelled", "skipped", "timed_out", "neutral", "action_required"] | None
    ) = "success"
    attempt: int = 1
    created_at: AwareDatetime
    #: ``None`` = three minutes after it was created.
    updated_at: AwareDatetime | None = None

    @property
    def identity(self) -> int:
        """Its number."""
        return self.id or number(f"{self.name}{self.sha}{self.created_at}")


class Workflow(Row):
    """One file of workflows."""

    name: str
    state: Literal["active", "deleted", "disabled_fork", "disabled_inactivity", "disabled_manually"] = "active"

    @property
    def identity(self) -> int:
        """Its number."""
        return number(self.name)


class GitHubFacts(Facts):
    """One repository's recent history; every list newest first."""

    deployments: list[Deployment]
    workflow_runs: list[WorkflowRun]
    commits: list[Commit]
    #: Requests left in this hour; at zero every further one is refused until the next.
    requests_left: int = Field(default=LIMIT - 12, ge=0)
    #: The files of workflows that are there, without their ending.
    workflows: list[Workflow] = Field(default_factory=lambda: [Workflow(name="deploy"), Workflow(name="rollback")])
    #: The state that a deployment is in which was started here.
    deploys_as: DeploymentState = "success"
    #: Where the application that is deployed takes a version (``{"version": "1.42.0"}``), and its token; empty = none.
    deploy_url: str = ""
    deploy_token: str = ""


class GitHub(Vendor[GitHubFacts]):
    """One repository."""

    name = "github"
    base = "/github"
    kept = ("deploy_url", "deploy_token")

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self._reset_at = int(now().timestamp()) + 1800

    def healthy(self, at: datetime) -> GitHubFacts:
        """The last deployment was two days ago, and went well."""
        commits = [
            Commit(
                sha=f"{number(f'commit {n}'):08x}" * 5,
                at=at - timedelta(days=2 * n + 2, hours=1),
                message=message,
                files=[File(filename=name)],
            )
            for n, (message, name) in enumerate(
                (
                    ("Say why a title is refused", "src/content/titles.ts"),
                    ("Tidy the upload route", "src/uploads/route.ts"),
                    ("Newer dependencies", "package-lock.json"),
                    ("Index of content by creator", "prisma/migrations/20261101_creator_index/migration.sql"),
                )
            )
        ]
        deployments = [
            Deployment(
                sha=commit.sha,
                created_at=commit.at + timedelta(hours=1),
                state="success" if place == 0 else "inactive",
                description=commit.message,
            )
            for place, commit in enumerate(commits[:3])
        ]
        runs = [WorkflowRun(sha=one.sha, created_at=one.created_at - timedelta(minutes=1)) for one in deployments]
        return GitHubFacts(deployments=deployments, workflow_runs=runs, commits=commits)

    def error(self, status: int) -> Any:
        """``message`` and where it is documented."""
        words = _WORDS.get(status, "Server Error")
        return {"message": words, "documentation_url": "https://docs.github.com/rest", "status": str(status)}

    def headers(self) -> Mapping[str, str]:
        """What is left of the hour."""
        left = self.facts.requests_left
        return {
            "x-ratelimit-limit": str(LIMIT),
            "x-ratelimit-remaining": str(left),
            "x-ratelimit-used": str(LIMIT - left),
            "x-ratelimit-reset": str(self._reset_at),
            "x-ratelimit-resource": "core",
            "x-github-media-type": "github.v3; format=json",
        }

    def refusal(self, request: Request) -> Response | None:
        """A bearer or the older ``token``; a repository that is not ours is not found; then the hour's limit."""
        path = request.url.path.removeprefix(self.base)
        if path in ("", "/"):
            return None
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "token") or not same(value, self.credentials.github):
            return self.said(401)
        if path == "/rate_limit":
            return None
        if not f"{path}/".startswith(f"/repos/{REPOSITORY}/"):
            return self.said(404)
        self._refill()
        if self.facts.requests_left == 0:
            body = self.error(403) | {"message": "API rate limit exceeded for user ID 1."}
            return JSONResponse(body, status_code=403)
        self.facts.requests_left -= 1
        return None

    def _refill(self) -> None:
        """A new hour, a new limit."""
        if now().timestamp() >= self._reset_at:
            self._reset_at = int(now().timestamp()) + 3600
            self.facts.requests_left = LIMIT

    def routes(self) -> list[Route]:
        """Reading one repository, starting its workflows."""
        root = "/repos/{owner}/{repository}"
        return [
            ("GET", root, self._repository),
            ("GET", f"{root}/deployments", self._deployments),
            ("GET", f"{root}/deployments/{{id}}", self._deployment),
            ("GET", f"{root}/deployments/{{id}}/statuses", self._statuses),
            ("GET", f"{root}/actions/runs", self._runs),
            ("GET", f"{root}/actions/runs/{{id}}", self._run),
            ("POST", f"{root}/actions/runs/{{id}}/rerun", self._rerun),
            ("GET", f"{root}/actions/workflows", self._workflows),
            ("POST", f"{root}/actions/workflows/{{id}}/dispatches", self._dispatch),
            ("GET", f"{root}/commits", self._commits),
            ("GET", f"{root}/commits/{{ref:path}}", self._commit),
            ("GET", f"{root}/compare/{{basehead:path}}", self._compare),
            ("GET", f"{root}/environments", self._environments),
            ("GET", "/rate_limit", self._rate_limit),
        ]

    # -- deployments -----------------------------------------------------------------------------

    async def _deployments(self, request: Request) -> Response:
        asked = request.query_params
        found = [
            one
            for one in sorted(self.facts.deployments, key=lambda one: one.created_at, reverse=True)
            if asked.get("environment", one.environment) in (one.environment, "none")
            and asked.get("sha", one.sha) == one.sha
            and asked.get("ref", one.ref) in (one.ref, "none")
            and asked.get("task", "deploy") in ("deploy", "none")
        ]
        page, links = self._page(request, found)
        return JSONResponse([self._shapes(request).deployment(one) for one in page], headers=links)

    async def _deployment(self, request: Request) -> Response:
        one = self._known_deployment(request)
        return JSONResponse(self._shapes(request).deployment(one)) if one else self.said(404)

    async def _statuses(self, request: Request) -> Response:
        one = self._known_deployment(request)
        if one is None:
            return self.said(404)
        page, links = self._page(request, self._history(one))
        run = self._run_of(one)
        return JSONResponse([self._shapes(request).status(one, run, *entry) for entry in page], headers=links)

    def _run_of(self, one: Deployment) -> int | None:
        """The run that deployed it: of its commit, the nearest in time."""
        runs = [run for run in self.facts.workflow_runs if run.sha == one.sha]
        nearest = min(runs, key=lambda run: abs(run.created_at - one.created_at), default=None)
        return nearest.identity if nearest is not None else None

    def _history(self, one: Deployment) -> list[tuple[DeploymentState, datetime]]:
        """Its statuses, newest first: what leads to the state it is in."""
        begun, ended = one.created_at, one.finished_at or one.created_at + timedelta(minutes=3)
        history: list[tuple[DeploymentState, datetime]] = [("queued", begun)]
        if one.state in ("queued", "pending"):
            return [(one.state, begun)]
        history.append(("in_progress", begun + (ended - begun) / 4))
        if one.state == "inactive":
            history.append(("success", ended))
            later = [other.created_at for other in self.facts.deployments if other.created_at > begun]
            history.append(("inactive", max(ended, min(later, default=ended) + timedelta(minutes=3))))
        elif one.state != "in_progress":
            history.append((one.state, ended))
        return history[::-1]

    def _known_deployment(self, request: Request) -> Deployment | None:
        wanted = request.path_params["id"]
        return next((one for one in self.facts.deployments if str(one.identity) == wanted), None)

    # -- workflow runs, environments, limits -----------------------------------------------------

    async def _runs(self, request: Request) -> Response:
        asked = request.query_params
        found = [
            run
            for run in sorted(self.facts.workflow_runs, key=lambda run: run.created_at, reverse=True)
            if asked.get("branch", run.branch) == run.branch
            and asked.get("event", run.event) == run.event
            and asked.get("head_sha", run.sha) == run.sha
            and asked.get("status", run.status) in (run.status, run.conclusion)
            and _within(run.created_at, asked.get("created", ""))
        ]
        page, links = self._page(request, found)
        runs = [self._shapes(request).run(run) for run in page]
        return JSONResponse({"total_count": len(found), "workflow_runs": runs}, headers=links)

    async def _run(self, request: Request) -> Response:
        run = self._known_run(request)
        return JSONResponse(self._shapes(request).run(run)) if run else self.said(404)

    def _known_run(self, request: Request) -> WorkflowRun | None:
        wanted = request.path_params["id"]
        return next((run for run in self.facts.workflow_runs if str(run.identity) == wanted), None)

    async def _rerun(self, request: Request) -> Response:
        run = self._known_run(request)
        if run is None:
            return self.said(404)
        if run.status != "completed" or now() - run.created_at > timedelta(days=_RERUN_DAYS):
            return self.said(403)
        run.id, run.attempt = run.identity, run.attempt + 1
        if run.name == "deploy":
            await self._deploys(run.sha, run.branch)
        return JSONResponse({}, status_code=201)

    async def _workflows(self, request: Request) -> Response:
        page, links = self._page(request, self.facts.workflows)
        shown = [self._shapes(request).workflow(one) for one in page]
        return JSONResponse({"total_count": len(self.facts.workflows), "workflows": shown}, headers=links)

    async def _dispatch(self, request: Request) -> Response:
        wanted = request.path_params["id"]
        workflow = next((w for w in self.facts.workflows if wanted in (f"{w.name}.yml", str(w.identity))), None)
        if workflow is None:
            return self.said(404)
        body = await json_object(request)
        inputs = body.get("inputs") or {}
        place = self._place(str(inputs.get("ref", "main")))
        # It is started on a branch or tag, and never on a commit; what it declares no input for it does not take.
        is_branch = body.get("ref") == "main" or any(one.ref == body.get("ref") for one in self.facts.deployments)
        if workflow.state != "active" or not is_branch or set(inputs) - {"ref"} or place is None:
            return self.said(422)
        sha = self._line()[place].sha
        run = WorkflowRun(sha=sha, name=workflow.name, event="workflow_dispatch", created_at=now())
        self.facts.workflow_runs = [run, *self.facts.workflow_runs]
        await self._deploys(sha, "main")
        details = self._shapes(request).dispatched(run)
        return JSONResponse(details) if body.get("return_run_details") is True else Response(status_code=204)

    async def _deploys(self, sha: str, ref: str) -> None:
        """A new deployment, which makes the one before inactive where it succeeds."""
        facts = self.facts
        if facts.deploys_as == "success":
            for one in facts.deployments:
                one.state = "inactive" if one.state == "success" else one.state
        new = Deployment(sha=sha, ref=ref, created_at=now(), state=facts.deploys_as, finished_at=now())
        facts.deployments = [new, *facts.deployments]
        if facts.deploys_as == "success" and facts.deploy_url:
            tags = [one.ref for one in facts.deployments if one.sha == sha and one.ref.startswith("v")]
            await deliver(facts.deploy_url, facts.deploy_token, version=tags[0][1:] if tags else "")

    async def _repository(self, request: Request) -> Response:
        return JSONResponse(self._shapes(request).repository())

    async def _environments(self, request: Request) -> Response:
        names = list(dict.fromkeys([ENVIRONMENT, *(one.environment for one in self.facts.deployments)]))
        shown = [self._shapes(request).environment(name) for name in names]
        return JSONResponse({"total_count": len(names), "environments": shown})

    async def _rate_limit(self, request: Request) -> Response:
        left = self.facts.requests_left
        core = {"limit": LIMIT, "remaining": left, "reset": self._reset_at, "used": LIMIT - left}
        search = {"limit": 30, "remaining": 30, "reset": self._reset_at, "used": 0}
        return JSONResponse({"resources": {"core": core, "search": search}, "rate": core})

    # -- commits ---------------------------------------------------------------------------------

    async def _commits(self, request: Request) -> Response:
        asked = request.query_params
        since, until = instant(asked.get("since")), instant(asked.get("until"))
        found = self._line()
        if asked.get("sha"):
            place = self._place(asked["sha"])
            if place is None:
                return self.said(404)
            found = found[place:]
        found = [one for one in found if (since is None or one.at >= since) and (until is None or one.at <= until)]
        if asked.get("path"):
            found = [one for one in found if any(file.filename.startswith(asked["path"]) for file in one.files)]
        page, links = self._page(request, found)
        return JSONResponse([self._shapes(request).commit(one, self._parent(one)) for one in page], headers=links)

    async def _commit(self, request: Request) -> Response:
        place = self._place(request.path_params["ref"])
        if place is None:
            return self.said(404)
        one = self._line()[place]
        whole_one = self._shapes(request).commit(one, self._parent(one))
        return JSONResponse(whole_one | {"files": [self._shapes(request).file(file) for file in one.files]})

    async def _compare(self, request: Request) -> Response:
        base, _, head = request.path_params["basehead"].partition("...")
        here, there = self._place(base), self._place(head)
        if here is None or there is None:
            return self.said(404)
        line, shapes = self._line(), self._shapes(request)
        between = line[there:here][::-1]
        files = {file.filename: file for commit in between for file in commit.files}
        page, links = self._page(request, between, usual=250)
        status = "identical" if here == there else "ahead" if there < here else "behind"
        merged = line[max(here, there)]
        comparison = {
            "status": status,
            "ahead_by": max(0, here - there),
            "behind_by": max(0, there - here),
            "total_commits": len(between),
            "base_commit": shapes.commit(line[here], self._parent(line[here])),
            "merge_base_commit": shapes.commit(merged, self._parent(merged)),
            "commits": [shapes.commit(one, self._parent(one)) for one in page],
            "files": [shapes.file(file) for file in list(files.values())[:_COMPARED_FILES]],
            **shapes.comparison_urls(line[here].sha, line[there].sha),
        }
        return JSONResponse(comparison, headers=links)

    def _line(self) -> list[Commit]:
        return sorted(self.facts.commits, key=lambda commit: commit.at, reverse=True)

    def _place(self, ref: str) -> int | None:
        """Where a branch, tag or commit stands in the line; tags are those that deployments name."""
        if ref in ("main", "HEAD"):
            return 0 if self.facts.commits else None
        tagged = next((one.sha for one in self.facts.deployments if one.ref == ref), ref)
        fits = re.fullmatch(r"[0-9a-f]{7,40}", tagged) is not None
        return next((n for n, one in enumerate(self._line()) if fits and one.sha.startswith(tagged)), None)

    def _parent(self, commit: Commit) -> str | None:
        line = self._line()
        place = line.index(commit) + 1
        return line[place].sha if place < len(line) else None

    # -- helpers ---------------------------------------------------------------------------------

    def _shapes(self, request: Request) -> Shapes:
        return Shapes(f"{request.url.scheme}://{request.url.netloc}{self.base}", REPOSITORY)

    def _page(self, request: Request, found: Sequence[Any], usual: int = 30) -> tuple[Sequence[Any], dict[str, str]]:
        """One page and its ``Link`` header, which is absent where everything fits."""
        size = whole(request.query_params.get("per_page"), usual, most=max(100, usual), least=1)
        page = whole(request.query_params.get("page"), 1, most=10_000, least=1)
        last = max(1, -(-len(found) // size))
        wanted: dict[str, int] = {}
        if page > 1:
            wanted |= {"prev": page - 1, "first": 1}
        if page < last:
            wanted |= {"next": page + 1, "last": last}
        links = [f'<{request.url.include_query_params(page=n)}>; rel="{rel}"' for rel, n in wanted.items()]
        return found[(page - 1) * size : page * size], {"link": ", ".join(links)} if links else {}


def _within(at: datetime, asked: str) -> bool:
    """GitHub's range syntax: ``>=t``, ``>t``, ``<=t``, ``<t``, ``t..t`` with ``*`` for open, or a day."""
    if not asked:
        return True
    if ".." in asked:
        low, high = (None if part == "*" else instant(part) for part in asked.split("..", 1))
        return (low is None or at >= low) and (high is None or at <= high)
    match = re.fullmatch(r"(>=|<=|>|<)?(.+)", asked)
    moment = instant(match[2]) if match else None
    if match is None or moment is None:
        return False
    compared = {">=": at >= moment, "<=": at <= moment, ">": at > moment, "<": at < moment}
    return compared.get(match[1] or "", moment <= at < moment + timedelta(days=1))

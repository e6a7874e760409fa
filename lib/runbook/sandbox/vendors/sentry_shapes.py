"""Sentry's objects in the shapes of its published specification, every required field present."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse

from runbook.sandbox.vendors.base import number, stamp

if TYPE_CHECKING:
    from runbook.sandbox.vendors.sentry_facts import Deploy, Issue, Release

_FRAME = re.compile(r"(?P<file>.+?)(?::(?P<line>\d+))?(?: in (?P<function>.+))?")


def issue(issue: Issue, identity: str, short: str, site: str, project: dict[str, Any]) -> dict[str, Any]:
    """An issue as it stands in a list."""
    first, last = stamp(issue.first_seen), stamp(issue.last_seen)
    metadata = {"type": issue.exception_type, "value": issue.exception_value}
    lifetime = {
        "count": str(issue.count),
        "userCount": issue.users,
        "firstSeen": first,
        "lastSeen": last,
        "stats": None,
    }
    return {
        "id": identity,
        "shareId": None,
        "shortId": short,
        "title": issue.title,
        "culprit": issue.culprit,
        "permalink": f"{site}/issues/{identity}/",
        "logger": None,
        "level": issue.level,
        "status": issue.status,
        "statusDetails": {},
        "substatus": issue.substatus if issue.status == "unresolved" else None,
        "isPublic": False,
        "platform": "node",
        "priority": "high" if issue.level in ("error", "fatal") else "medium",
        "priorityLockedAt": None,
        "seerFixabilityScore": None,
        "seerAutofixLastTriggered": None,
        "seerExplorerAutofixLastTriggered": None,
        "project": project,
        "type": "error",
        "issueType": "error",
        "issueCategory": "error",
        "metadata": metadata if issue.exception_type else {"title": issue.title},
        "numComments": 0,
        "assignedTo": None,
        "isBookmarked": False,
        "isSubscribed": False,
        "subscriptionDetails": None,
        "hasSeen": False,
        "annotations": [],
        "isUnhandled": issue.level in ("error", "fatal"),
        "count": str(issue.count),
        "userCount": issue.users,
        "firstSeen": first,
        "lastSeen": last,
        "derivedData": {
            "blocker": "",
            "progress": "",
            "status": "",
            "viewCount": 0,
            "hasOpenFixPr": False,
            "isAssigned": False,
            "hasRootCause": False,
            "lastCompletedAutofixStep": "",
            "lastProgressedAt": None,
        },
        "stats": {"24h": [[int(issue.last_seen.timestamp()) // 3600 * 3600, issue.count]]},
        "lifetime": lifetime,
        "filtered": None,
        "sessionCount": 0,
        "inbox": {"reason": 0, "reason_details": None, "date_added": first},
        "owners": {"type": "ownershipRule", "owner": "", "date_added": first},
        "integrationIssues": [],
        "sentryAppIssues": [],
        "latestEventHasAttachments": False,
        "matchingEventId": None,
        "matchingEventEnvironment": None,
    }


def details(first: dict[str, Any] | None, last: dict[str, Any] | None) -> dict[str, Any]:
    """What an issue says by itself over what it says in a list; its first and its last release."""
    return {
        "firstRelease": first,
        "lastRelease": last,
        "tags": [],
        "owners": None,
        "activity": [],
        "participants": [],
        "seenBy": [],
        "userReportCount": 0,
    }


def event(issue: Issue, version: str | None) -> dict[str, Any]:
    """The newest event of an issue."""
    identity = f"{number(f'{issue.title}{stamp(issue.last_seen)}'):032x}"
    tags = {"environment": issue.environment, "level": issue.level, "transaction": issue.transaction, **issue.tags}
    tags |= {"release": version} if version else {}
    frames = [_frame(text) for text in reversed(issue.frames)]
    thrown = {
        "type": issue.exception_type or "Error",
        "value": issue.exception_value or issue.title,
        "mechanism": {"type": "generic", "handled": False},
        "module": None,
        "threadId": None,
        "stacktrace": {"frames": frames, "framesOmitted": None, "hasSystemFrames": False, "registers": None},
        "rawStacktrace": None,
    }
    exception = {"type": "exception", "data": {"values": [thrown], "excOmitted": None, "hasSystemFrames": False}}
    return {
        "id": identity,
        "groupID": issue.id or None,
        "eventID": identity,
        "projectID": "1",
        "message": "",
        "title": issue.title,
        "location": issue.frames[0].partition(":")[0] if issue.frames else None,
        "user": None,
        "tags": [{"key": key, "value": value} for key, value in tags.items() if value],
        "platform": "node",
        "dateReceived": stamp(issue.last_seen + timedelta(seconds=1)),
        "dateCreated": stamp(issue.last_seen),
        "contexts": {},
        "size": 2048,
        "entries": [exception],
        "dist": None,
        "sdk": {"name": "sentry.javascript.node", "version": "8.0.0"},
        "context": {},
        "packages": {},
        "type": "error",
        "metadata": {"type": thrown["type"], "value": thrown["value"]},
        "errors": [],
        "occurrence": None,
        "_meta": {},
        "crashFile": None,
        "culprit": issue.culprit,
        "fingerprints": [identity],
        "groupingConfig": {"id": "newstyle:2023-01-11", "enhancements": ""},
        "release": _event_release(issue, version),
        "userReport": None,
        "sdkUpdates": [],
        "resolvedWith": [],
        "nextEventID": None,
        "previousEventID": None,
    }


def short_event(event: dict[str, Any]) -> dict[str, Any]:
    """An event as it stands in a list."""
    kept = (
        "id", "groupID", "eventID", "projectID", "message", "title", "location", "culprit", "user", "tags", "platform",
        "dateCreated", "crashFile", "metadata",
    )  # fmt: skip
    return {"event.type": "error", **{key: event[key] for key in kept}}


def release(release: Release) -> dict[str, Any]:
    """A release as it stands in a list."""
    last = max(release.deploys, key=lambda deploy: deploy.finished_at, default=None)
    package, _, version = release.version.rpartition("@")
    return {
        "id": number(release.version),
        "version": release.version,
        "shortVersion": version,
        "versionInfo": {
            "description": version,
            "package": package or None,
            "version": {"raw": version},
            "buildHash": None,
        },
        "status": "open",
        "ref": None,
        "url": None,
        "dateCreated": stamp(release.created_at),
        "dateReleased": stamp(release.released_at),
        "newGroups": release.new_issues,
        "data": {},
        "commitCount": 0,
        "deployCount": len(release.deploys),
        "lastCommit": None,
        "lastDeploy": deploy(last) | {"name": last.name or ""} if last else None,
        "authors": [],
        "projects": [
            {
                "id": 1,
                "slug": "api",
                "name": "api",
                "platform": "node",
                "platforms": ["node"],
                "hasHealthData": False,
                "newGroups": release.new_issues,
            }
        ],
    }


def deploy(deploy: Deploy) -> dict[str, Any]:
    """One deploy of a release."""
    return {
        "id": str(number(f"{deploy.environment}{stamp(deploy.finished_at)}")),
        "environment": deploy.environment,
        "dateStarted": None,
        "dateFinished": stamp(deploy.finished_at),
        "name": deploy.name,
        "url": None,
    }


def project(identity: str, slug: str) -> dict[str, Any]:
    """A project as it stands in the organization's list."""
    has = (
        "Access", "Feedbacks", "Flags", "MinifiedStackTrace", "Monitors", "NewFeedbacks", "Profiles", "Replays",
        "Sessions", "InsightsHttp", "InsightsDb", "InsightsAssets", "InsightsAppStart", "InsightsScreenLoad",
        "InsightsVitals", "InsightsCaches", "InsightsQueues", "InsightsAgentMonitoring", "InsightsMCP", "Logs",
        "TraceMetrics", "UserReports",
    )  # fmt: skip
    return {
        "id": identity,
        "slug": slug,
        "name": slug,
        "platform": "node",
        "dateCreated": "2024-01-01T00:00:00Z",
        "isBookmarked": False,
        "isMember": True,
        "features": [],
        "firstEvent": "2024-01-02T00:00:00Z",
        "firstTransactionEvent": False,
        "access": [],
        **{f"has{name}": name == "Access" for name in has},
        "team": None,
        "teams": [],
        "platforms": ["node"],
        "environments": ["production"],
        "latestRelease": None,
    }


def rows_of(page: JSONResponse) -> list[dict[str, Any]]:
    """The rows that a page holds."""
    rows: list[dict[str, Any]] = json.loads(bytes(page.body))
    return rows


def _frame(text: str) -> dict[str, Any]:
    parts = _FRAME.fullmatch(text)
    assert parts is not None
    file, line, function = parts["file"], parts["line"], parts["function"]
    return {
        "filename": file,
        "absPath": f"/srv/app/{file}",
        "module": None,
        "function": function,
        "lineNo": int(line) if line else None,
        "colNo": None,
        "inApp": True,
        "context": [],
        "vars": None,
    }


def _event_release(issue: Issue, version: str | None) -> dict[str, Any] | None:
    if version is None:
        return None
    return {
        "id": number(version),
        "commitCount": 0,
        "data": {},
        "dateCreated": stamp(issue.first_seen),
        "dateReleased": None,
        "deployCount": 1,
        "ref": None,
        "lastCommit": None,
        "lastDeploy": None,
        "status": "open",
        "url": None,
        "userAgent": None,
        "version": version,
        "versionInfo": None,
    }

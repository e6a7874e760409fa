"""Sentry's objects in the shapes of its published specification, every required field present."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse

from runbook.sandbox.vendors.base import number, stamp
from runbook.sandbox.vendors.sentry_queries import issue_id

if TYPE_CHECKING:
    from runbook.sandbox.vendors.sentry_facts import Deploy, Issue, Release

_FRAME = re.compile(r"(?P<file>.+?)(?::(?P<line>\d+))?(?: in (?P<function>.+))?")


#: Required by the specification, and the same for every issue here.
_USUAL_ISSUE: Mapping[str, Any] = {
    "shareId": None,
    "logger": None,
    "statusDetails": {},
    "isPublic": False,
    "platform": "node",
    "priorityLockedAt": None,
    "seerFixabilityScore": None,
    "seerAutofixLastTriggered": None,
    "seerExplorerAutofixLastTriggered": None,
    "type": "error",
    "issueType": "error",
    "issueCategory": "error",
    "numComments": 0,
    "assignedTo": None,
    "isBookmarked": False,
    "isSubscribed": False,
    "subscriptionDetails": None,
    "hasSeen": False,
    "annotations": [],
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
    "filtered": None,
    "sessionCount": 0,
    "integrationIssues": [],
    "sentryAppIssues": [],
    "latestEventHasAttachments": False,
    "matchingEventId": None,
    "matchingEventEnvironment": None,
}
#: The same for events.
_USUAL_EVENT: Mapping[str, Any] = {
    "projectID": "1",
    "message": "",
    "user": None,
    "platform": "node",
    "contexts": {},
    "size": 2048,
    "dist": None,
    "sdk": {"name": "sentry.javascript.node", "version": "8.0.0"},
    "context": {},
    "packages": {},
    "type": "error",
    "errors": [],
    "occurrence": None,
    "_meta": {},
    "crashFile": None,
    "groupingConfig": {"id": "newstyle:2023-01-11", "enhancements": ""},
    "userReport": None,
    "sdkUpdates": [],
    "resolvedWith": [],
    "nextEventID": None,
    "previousEventID": None,
}


def issue(issue: Issue, identity: str, short: str, site: str, project: dict[str, Any]) -> dict[str, Any]:
    """An issue as it stands in a list."""
    first, last = stamp(issue.first_seen), stamp(issue.last_seen)
    serious = issue.level in ("error", "fatal")
    counted = {"count": str(issue.count), "userCount": issue.users, "firstSeen": first, "lastSeen": last}
    metadata = {"type": issue.exception_type, "value": issue.exception_value}
    return {
        **_USUAL_ISSUE,
        **counted,
        "id": identity,
        "shortId": short,
        "title": issue.title,
        "culprit": issue.culprit,
        "permalink": f"{site}/issues/{identity}/",
        "level": issue.level,
        "status": issue.status,
        "substatus": issue.substatus if issue.status == "unresolved" else None,
        "priority": "high" if serious else "medium",
        "isUnhandled": serious,
        "project": project,
        "metadata": metadata if issue.exception_type else {"title": issue.title},
        "stats": {"24h": [[int(issue.last_seen.timestamp()) // 3600 * 3600, issue.count]]},
        "lifetime": {**counted, "stats": None},
        "inbox": {"reason": 0, "reason_details": None, "date_added": first},
        "owners": {"type": "ownershipRule", "owner": "", "date_added": first},
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
    thrown = _thrown(issue)
    exception = {"type": "exception", "data": {"values": [thrown], "excOmitted": None, "hasSystemFrames": False}}
    return {
        **_USUAL_EVENT,
        "id": identity,
        "groupID": issue_id(issue),
        "eventID": identity,
        "title": issue.title,
        "location": issue.frames[0].partition(":")[0] if issue.frames else None,
        "tags": [{"key": key, "value": value} for key, value in tags.items() if value],
        "dateReceived": stamp(issue.last_seen + timedelta(seconds=1)),
        "dateCreated": stamp(issue.last_seen),
        "entries": [exception],
        "metadata": {"type": thrown["type"], "value": thrown["value"]},
        "culprit": issue.culprit,
        "fingerprints": [identity],
        "release": _event_release(issue, version),
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


def _thrown(issue: Issue) -> dict[str, Any]:
    frames = [_frame(text) for text in reversed(issue.frames)]
    return {
        "type": issue.exception_type or "Error",
        "value": issue.exception_value or issue.title,
        "mechanism": {"type": "generic", "handled": False},
        "module": None,
        "threadId": None,
        "stacktrace": {"frames": frames, "framesOmitted": None, "hasSystemFrames": False, "registers": None},
        "rawStacktrace": None,
    }


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

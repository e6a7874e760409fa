"""The result document of one run: the findings that it came to, and the envelope around them.

The findings are the ones that the notebook displayed. When it did not get so far, its diagnosis is called here on the
readings that were recorded; when that fails too, the document says that nothing could be concluded, and why.
"""

from __future__ import annotations

import importlib
import json
import platform
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

import runbook as package
from runbook.catalog import Runbook
from runbook.execution.course import Course, Failure
from runbook.redaction import kept_labels
from runbook.result import SCHEMA, NotChecked, Reading, empty_findings

log = structlog.get_logger(__name__)

DIAGNOSIS_ROOM = "runbook.diagnosis."
_FINDINGS = ("symptom", "impact", "outcome", "verdict", "evidence", "not_checked", "unexplained", "actions")


def conclude(
    runbook: Runbook,
    displayed: Mapping[str, Any] | None,
    readings: Sequence[Reading],
    parameters: Mapping[str, Any],
    course: Course,
) -> dict[str, Any]:
    """The findings of the run, and every cell that raised among what was not checked.

    Notes
    -----
    Sets the course to *failed* when the notebook did not conclude by itself.
    """
    findings = dict(displayed) if displayed is not None else _diagnosed(runbook, readings, parameters, course)
    if displayed is None and course.ended is None:
        course.state = "failed"
        course.ended = (
            course.raised[0]
            if course.raised
            else Failure(cell="", name="NoVerdict", message="the notebook ended without displaying what it found")
        )
    raised = [
        NotChecked(source=failure.cell, state="partial", reason=f"{failure.name}: {failure.message}")
        for failure in course.raised
    ]
    findings["not_checked"] = [*findings["not_checked"], *(vars(item) for item in raised)]
    return {key: findings.get(key) for key in _FINDINGS}


def _diagnosed(
    runbook: Runbook, readings: Sequence[Reading], parameters: Mapping[str, Any], course: Course
) -> dict[str, Any]:
    why = course.ended or (course.raised[0] if course.raised else None)
    reason = f"{why.name} at {why.cell}: {why.message}" if why else "the notebook displayed no findings"
    try:
        findings: dict[str, Any] = diagnosis(runbook.diagnosis)(readings, parameters).as_dict()
    except Exception as error:  # noqa: BLE001 - the author's code: the report is written all the same, and says so
        log.error("diagnosis_failed", runbook=runbook.name, diagnosis=runbook.diagnosis, error=type(error).__name__)
        return empty_findings(f"{reason}; the diagnosis of what was recorded failed too ({type(error).__name__})")
    return findings


def what_happened(error: Exception) -> str:
    """Exception and place in one line; a traceback with local variables would carry secrets into the log."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def diagnosis(name: str) -> Any:
    """The function that ``module:function`` of a notebook's metadata names; only below :mod:`runbook.diagnosis`.

    Raises
    ------
    LookupError
        It is elsewhere, or not there.
    """
    module, _, function = name.partition(":")
    qualified = module if module.startswith(DIAGNOSIS_ROOM) else DIAGNOSIS_ROOM + module
    if not function.isidentifier() or not all(part.isidentifier() for part in qualified.split(".")):
        raise LookupError(f"diagnosis {name!r} is not module:function below {DIAGNOSIS_ROOM[:-1]}")
    try:
        return getattr(importlib.import_module(qualified), function)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"diagnosis {name!r} cannot be found: {error}") from None


def shown_alert(alert: Mapping[str, Any] | None, runbook: Runbook) -> dict[str, Any] | None:
    """The alert as it may leave: the values of labels that nobody asked for are withheld."""
    if alert is None:
        return None
    labels = alert.get("labels")
    if not isinstance(labels, Mapping):
        return dict(alert)
    return {**alert, "labels": kept_labels(labels, also=runbook.parameters_from_alert.values())}


def versions() -> dict[str, str]:
    """Of what made the result."""
    return {
        "runbook": package.__version__,
        "python": platform.python_version(),
        "papermill": version("papermill"),
    }


def as_json(value: Any) -> Any:
    """``value`` as plain JSON values: what JSON cannot say becomes text, a number that is none becomes ``null``."""
    return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)


def envelope(findings: Mapping[str, Any], course: Course, **facts: Any) -> dict[str, Any]:
    """The whole document, keys in the order of the schema. ``facts`` are those that only the run knows."""
    head = ("run_id", "runbook", "title", "severity", "parameters", "alert", "incident_id")
    document = {
        "schema": SCHEMA,
        **{key: facts[key] for key in head},
        "state": course.state,
        "error": course.ended.as_dict() if course.ended is not None else None,
        **{key: facts[key] for key in ("started_at", "finished_at", "timings", "versions")},
        **findings,
        "report": facts["report"],
    }
    plain: dict[str, Any] = as_json(document)
    return plain

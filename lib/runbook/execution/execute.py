"""One run, from a request to four files in the archive.

Catalog, parameters, kernel, lease, cells, findings, redaction, rendering, archive: in this order, in the calling
thread. Whatever happens to kernel, cells, diagnosis or rendering, what is known is archived and says what happened;
nothing is written before it was redacted.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import structlog

from runbook import catalog, recording
from runbook.errors import ArchiveError
from runbook.execution import document
from runbook.execution.course import Course, Failure, Progress
from runbook.redaction import Redactor, environment_secrets, secrets_in_labels
from runbook.result import Reading

if TYPE_CHECKING:
    from runbook.execution.kernel import Kernel
    from runbook.execution.kernels import KernelPool
    from runbook.reporting.archive import Archive
    from runbook.settings import Settings

log = structlog.get_logger(__name__)

LEASE_SECONDS = 30.0
"""How long a run waits for a warm kernel before it takes a cold one."""
CONCLUDE_SHARE, CONCLUDE_SECONDS = 0.1, 5.0
"""Part of the time limit, and at most how much of it, that a notebook keeps to conclude before it is cut off."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What is to be run. ``parameters`` holds JSON values."""

    run_id: str
    runbook: str
    parameters: dict[str, Any]
    #: The alert that asked for it, as received.
    alert: dict[str, Any] | None = None
    incident_id: str | None = None
    queued_at: datetime | None = None
    #: Who asked for it, where that was a person we know: ``person:ada``.
    asked_by: str = ""


class NotArchived(ArchiveError):
    """The run is over and could not be archived; :attr:`result` and :attr:`files` are all that it left."""

    def __init__(self, error: ArchiveError, result: dict[str, Any], files: Mapping[str, bytes], kept: str) -> None:
        super().__init__(error.message, remedy=f"{kept} {error.remedy}".strip())
        self.result = result
        self.files = dict(files)


def execute(
    request: RunRequest,
    settings: Settings,
    *,
    archive: Archive,
    pool: KernelPool | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
) -> dict[str, Any]:
    """Run it; the four files are in the archive when this returns. Blocking; any number of threads may do this.

    Parameters
    ----------
    pool
        Where to take a warm kernel from; without one the kernel is started cold.
    progress
        Called before and after each code cell, in the calling thread.
    cancel
        Ends the run soon after it is set, with a report of what is known.

    Returns
    -------
    dict
        The result document (schema 1). Its ``state`` tells whether the run itself failed.

    Raises
    ------
    UnknownRunbook, BrokenNotebook, InvalidParameter
        There was nothing to run.
    NotArchived
        It ran, and the archive cannot be written. Carries the result and the files.
    """
    run = _Run(request, settings, archive, progress, cancel)
    with tempfile.TemporaryDirectory(prefix="runbook-run-") as scratch:
        path = Path(scratch) / "readings.jsonl"
        run.execute_notebook(path, pool)
        readings = recording.load(path)
    return run.archive_what_is_known(readings)


def prepare() -> None:
    """Import and compile now what the first run of this process would have to: papermill, nbconvert, templates.

    For a process that stays, while it has nothing else to do; takes a second or two.
    """
    import nbformat

    from runbook.execution import files, headless  # noqa: F401 - imported is all that it needs to be
    from runbook.result import empty_findings

    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# Rehearsal"), nbformat.v4.new_code_cell("1")]
    )
    now = datetime.now(UTC).isoformat()
    facts = dict.fromkeys(("run_id", "runbook", "title", "severity"), "rehearsal") | {
        "parameters": {}, "alert": None, "incident_id": None, "started_at": now, "finished_at": now,
        "timings": dict.fromkeys(("queued_s", "kernel_s", "cells_s", "render_s", "total_s"), 0.0),
        "versions": document.versions(), "report": None,
    }  # fmt: skip
    result = document.envelope(empty_findings("rehearsal"), Course(), **facts)
    files.rendered(notebook, result, Redactor())


class _RememberingRedactor(Redactor):
    """Redacts a text once: the same ones stand in readings, outputs and the result document of a run."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(secrets)
        self._clean: dict[str, str] = {}

    def text(self, text: str) -> str:
        clean = self._clean.get(text)
        if clean is None:
            clean = self._clean[text] = super().text(text)
        return clean


class _Run:
    """One call of :func:`execute`: what its steps hand to each other."""

    def __init__(
        self,
        request: RunRequest,
        settings: Settings,
        archive: Archive,
        progress: Callable[[Progress], None] | None,
        cancel: threading.Event | None,
    ) -> None:
        self.request, self.archive, self.progress, self.cancel = request, archive, progress, cancel
        self.log = log.bind(run_id=request.run_id, runbook=request.runbook)
        self.runbook = catalog.load(request.runbook)
        self.settings, self.parameters = _scoped(self.runbook, request.parameters, settings)
        self.alert = document.shown_alert(request.alert, self.runbook)
        self.redactor = _RememberingRedactor(_secrets(self.runbook, request.alert, self.settings, settings))
        self.started_at = datetime.now(UTC)
        self.begun = time.monotonic()
        archive.path(request.run_id, self.started_at)  # refuses a run id that is no name, before anything has run
        self.course = Course()
        self.kernel_seconds = self.cells_seconds = 0.0

    def execute_notebook(self, path: Path, pool: KernelPool | None) -> None:
        """Get a kernel, give it the lease, execute the cells. What goes wrong is in the course afterwards."""
        from runbook.execution.kernel import Kernel, KernelFailed

        limit = self.runbook.timeout_seconds
        try:
            with pool.lease(min(LEASE_SECONDS, limit / 2)) if pool is not None else Kernel.cold() as kernel:
                # A cold kernel imports while we do.
                from runbook.execution import headless

                kernel.connect()
                kernel.ask(self._lease(path))
                self.kernel_seconds = time.monotonic() - self.begun
                self.log.info("kernel_leased", warm=kernel.warm, seconds=round(self.kernel_seconds, 3))
                self._execute_cells(kernel, headless.execute_cells)
        except KernelFailed as error:
            self.course.state = "failed"
            self.course.ended = Failure(cell="", name="KernelFailed", message=error.message)
        except KeyboardInterrupt:
            self.course.state = "interrupted"
            if self.course.ended is None:
                self.course.ended = Failure(cell="", name="Interrupted", message="the run was interrupted")

    def _execute_cells(self, kernel: Kernel, execute_cells: Callable[..., None]) -> None:
        began = time.monotonic()
        try:
            execute_cells(
                self.runbook.notebook(),
                json.loads(json.dumps(self.parameters, allow_nan=False)),
                course=self.course,
                kernel=kernel,
                deadline=self.begun + self.runbook.timeout_seconds,
                cancel=self.cancel,
                progress=self.progress,
            )
        except Exception as error:  # noqa: BLE001 - ours or a library's: what was found out is worth a report anyway
            self.log.error("execution_failed", reason=self.redactor.text(document.what_happened(error)))
            self.course.state = "failed"
            if self.course.ended is None:
                self.course.ended = Failure(cell="", name=type(error).__name__, message=str(error))
        finally:
            self.cells_seconds = time.monotonic() - began

    def _lease(self, path: Path) -> str:
        limit = self.runbook.timeout_seconds
        margin = min(CONCLUDE_SECONDS, limit * CONCLUDE_SHARE)
        lease = {
            "run_id": self.request.run_id,
            "runbook": self.runbook.name,
            "recording": str(path),
            "settings": self.settings.diagnosing(),
            "alert": self.redactor.value(self.alert),
            "deadline": self.started_at.timestamp() + limit - margin,
        }
        return f"from runbook.run import accept_lease; accept_lease({json.dumps(lease)!r})"

    def archive_what_is_known(self, readings: Sequence[Reading]) -> dict[str, Any]:
        """Findings, envelope, redaction, report, archive."""
        from runbook.execution import cells, files

        # The kernel redacted what it recorded, but knows fewer secrets than we do.
        readings = [Reading(**self.redactor.value(reading.as_dict())) for reading in readings]
        notebook = self.course.notebook or self.runbook.notebook()
        displayed = cells.displayed_findings(notebook)
        findings = document.conclude(self.runbook, displayed, readings, self.parameters, self.course)
        result = self._result(findings, files)
        clean = files.redacted_notebook(notebook, self.redactor)
        rendering = time.monotonic()
        report = files.rendered(clean, result, self.redactor)
        now = time.monotonic()
        result["timings"] |= {"render_s": round(now - rendering, 4), "total_s": self._total(now)}
        packed = files.packed(report, clean, result, readings)
        try:
            where = self.archive.write(self.request.run_id, self.started_at, packed)
        except ArchiveError as error:
            self.log.error("not_archived", reason=str(error))
            raise NotArchived(error, result, packed, _rescued(self.request.run_id, packed)) from error
        self.log.info(
            "run_archived", state=result["state"], outcome=result["outcome"], directory=where, **result["timings"]
        )
        return result

    def _result(self, findings: Mapping[str, Any], files: ModuleType) -> dict[str, Any]:
        """The redacted document. What is ours in it, and never secret, is put in afterwards, as it is."""
        request = self.request
        queued = (self.started_at - request.queued_at).total_seconds() if request.queued_at is not None else 0.0
        timings = {
            "queued_s": round(max(0.0, queued), 4),
            "kernel_s": round(self.kernel_seconds, 4),
            "cells_s": round(self.cells_seconds, 4),
            "render_s": 0.0,
            "total_s": self._total(time.monotonic()),
        }
        result: dict[str, Any] = self.redactor.value(
            document.envelope(
                findings,
                self.course,
                run_id=request.run_id,
                runbook=self.runbook.name,
                title=self.runbook.title,
                severity=self.runbook.severity,
                parameters=self.parameters,
                alert=self.alert,
                incident_id=request.incident_id,
                started_at=self.started_at.isoformat(),
                finished_at=datetime.now(UTC).isoformat(),
                timings=timings,
                versions=document.versions(),
                report=None,
            )
        )
        names = {"html": files.REPORT, "notebook": files.NOTEBOOK, "result": files.RESULT}
        paths = {key: str(self.archive.path(request.run_id, self.started_at, name)) for key, name in names.items()}
        asked = {"asked_by": request.asked_by} if request.asked_by else {}
        return {**result, "run_id": request.run_id, "report": paths, **asked}

    def _total(self, now: float) -> float:
        return round(now - self.begun, 4)


def _scoped(runbook: catalog.Runbook, given: Mapping[str, Any], settings: Settings) -> tuple[Settings, dict[str, Any]]:
    """The settings of the service that the parameters name, and all parameters under them."""
    parameters = catalog.check_parameters(runbook, given, settings)
    return settings.for_service(str(parameters.get("service", ""))), parameters


def _secrets(runbook: catalog.Runbook, alert: Mapping[str, Any] | None, *settings: Settings) -> list[str]:
    """What must not be in any output: of the settings, of this process's environment, of the alert."""
    labels = (alert or {}).get("labels")
    borne = secrets_in_labels(labels, also=runbook.parameters_from_alert.values()) if isinstance(labels, dict) else []
    return [*(secret for each in settings for secret in each.secrets()), *environment_secrets(os.environ), *borne]


def _rescued(run_id: str, packed: Mapping[str, bytes]) -> str:
    """Put the files where a person can find them, and say where."""
    from runbook.reporting.archive import write_flat

    try:
        directory = Path(tempfile.mkdtemp(prefix=f"runbook-rescued-{run_id[:40]}-"))
        write_flat(directory, packed)
    except (OSError, ArchiveError):
        return "The report of this run is lost when this process ends."
    return f"The report of this run is kept in {directory}."

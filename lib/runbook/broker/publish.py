"""A worked-through notebook becomes the report of its run: outputs as they are saved, redacted, archived, announced.

The working copy of an archived run makes a new revision of that run's report; the earlier files stay beside it as
``report.1.html`` and so on. Any other notebook is archived as a run of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import nbformat
from nbformat import NotebookNode
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from runbook import catalog
from runbook.broker.working_copy import WIDGET, run_of
from runbook.dispatch.announce import announce, report_url
from runbook.errors import NotFound, RunbookError
from runbook.execution import cells, document, files
from runbook.execution.course import Course, Failure
from runbook.progress import MARK as PROGRESS_MARK
from runbook.publishing import MARK
from runbook.redaction import Redactor, environment_secrets
from runbook.reporting.archive import FILES, RESULT, Archive
from runbook.reporting.fragment import ACTIONS_MARK, actions_html
from runbook.result import Reading
from runbook.store.ids import RUN_ID

if TYPE_CHECKING:
    from runbook.settings import Settings

RunId = Annotated[str, StringConstraints(pattern=f"^{RUN_ID.pattern}$")]
MAX_NOTEBOOK_BYTES = 100_000_000


class Worked(BaseModel):
    """What a kernel says of its run when it asks for publishing."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    run_id: RunId
    runbook: str = Field(max_length=100)
    parameters: dict[str, Any] = {}
    notebook: Path
    started_at: datetime
    #: As recorded, redacted.
    readings: list[dict[str, Any]] = []


async def publish(
    worked: Worked,
    settings: Settings,
    archive: Archive,
    *,
    actor: str,
    became: Mapping[str, Mapping[str, str]] | None = None,
    record: Callable[[Mapping[str, Any]], Awaitable[object]] | None = None,
) -> dict[str, Any]:
    """Archive and announce it; ``{run_id, revision, report, url, message}``.

    Parameters
    ----------
    became
        What became of its actions, by their ids: ``{state, became}``.
    record
        Is told the result, for a store that finds reports.

    Raises
    ------
    RunbookError
        It is no runbook of ours, or the archive cannot be written.
    """
    result = await asyncio.to_thread(_archived, worked, settings, archive, actor, became or {})
    if record is not None:
        await record(result)
    posted = await announce(result, settings)
    if posted is None:
        message = "not sent: no discord.webhook_url"
    else:
        message = "sent" if posted.state == "sent" else f"not sent: {posted.reason}"
    return {
        "run_id": result["run_id"], "revision": result["revision"]["number"], "report": result["report"]["html"],
        "url": report_url(result, settings), "message": message,
    }  # fmt: skip


def _archived(
    worked: Worked, settings: Settings, archive: Archive, actor: str, became: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    runbook = catalog.load(worked.runbook)
    parameters = catalog.check_parameters(runbook, worked.parameters, settings)
    settings = settings.for_service(str(parameters.get("service", "")))
    redactor = Redactor([*settings.secrets(), *environment_secrets(os.environ)])
    notebook = _read(worked.notebook)
    first = first_of(worked.notebook, archive)
    started = datetime.fromisoformat(first["started_at"]) if first else worked.started_at.astimezone(UTC)
    run_id = str(first["run_id"]) if first else worked.run_id
    earlier = _earlier(archive, run_id, started)
    readings = [Reading(**redactor.value(one)) for one in worked.readings]
    course = Course(notebook=notebook, raised=_raised(notebook))
    findings = document.conclude(runbook, cells.displayed_findings(notebook), readings, parameters, course)
    findings["actions"] = [{**one, **became.get(one["id"], {})} for one in findings["actions"]]
    now = datetime.now(UTC)
    worked_seconds = round((now - worked.started_at.astimezone(UTC)).total_seconds(), 4)
    result: dict[str, Any] = redactor.value(
        document.envelope(
            findings, course, run_id=run_id, runbook=runbook.name, title=runbook.title, severity=runbook.severity,
            parameters=parameters, alert=first.get("alert"), incident_id=first.get("incident_id"),
            started_at=started.isoformat(), finished_at=now.isoformat(),
            timings=first.get("timings") or _timings(worked_seconds), versions=document.versions(), report=None,
        )
    )  # fmt: skip
    names = {"html": files.REPORT, "notebook": files.NOTEBOOK, "result": files.RESULT}
    result |= {
        "run_id": run_id,
        "report": {key: str(archive.path(run_id, started, name)) for key, name in names.items()},
        "revision": {"number": len(earlier) // len(FILES) + 1, "by": actor, "worked_as": worked.run_id},
    }
    clean = files.redacted_notebook(_plain(notebook, result), redactor)
    packed = files.packed(files.rendered(clean, result, redactor), clean, result, readings)
    archive.write(run_id, started, earlier | packed)
    return result


def _read(path: Path) -> NotebookNode:
    try:
        if path.stat().st_size > MAX_NOTEBOOK_BYTES:
            raise RunbookError(f"notebook {path.name} is larger than {MAX_NOTEBOOK_BYTES // 1_000_000} MB")
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise NotFound(f"notebook {path.name} cannot be read ({error.strerror})", remedy="Save it first") from None
    except (ValueError, nbformat.ValidationError):
        raise RunbookError(f"{path.name} is no notebook", remedy="Save it again") from None


def first_of(notebook: Path, archive: Archive) -> dict[str, Any]:
    """The result document of the run that a notebook is the working copy of; empty when it is none."""
    run_id = run_of(notebook)
    directory = archive.find(run_id) if run_id else None
    if directory is None:
        return {}
    found: dict[str, Any] = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    return found


def _earlier(archive: Archive, run_id: str, started: datetime) -> dict[str, bytes]:
    """The files that are archived already, under the names that they keep: the newest gets the next number."""
    directory = archive.path(run_id, started)
    if not directory.is_dir():
        return {}
    found = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    kept = {name: content for name, content in found.items() if name not in FILES}
    number = len(kept) // len(FILES) + 1
    return kept | {_numbered(name, number): found[name] for name in FILES if name in found}


def _numbered(name: str, number: int) -> str:
    stem, _, rest = name.partition(".")
    return f"{stem}.{number}.{rest}"


def _raised(notebook: NotebookNode) -> list[Failure]:
    """Cells that show an error."""
    return [
        Failure(cell=cells.label(notebook, index), name=str(output.get("ename")), message=str(output.get("evalue")))
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code"
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]


def _plain(notebook: NotebookNode, result: Mapping[str, Any]) -> NotebookNode:
    """The notebook with the static form of every widget and without what told of progress; that of the actions says how
    far they have come."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_lasting, cell.get("outputs", [])) if output is not None]
            for output in cell.outputs:
                data = output.get("data", {})
                html = "".join(data.get("text/html", ""))
                if html.startswith(ACTIONS_MARK):
                    data["text/html"] = actions_html(result["actions"])
                elif html.startswith(MARK):
                    data["text/html"] = f"<p>Published as revision {result['revision']['number']}.</p>"
    return notebook


def _lasting(output: NotebookNode) -> NotebookNode | None:
    """An output as it may be kept; ``None`` when nothing of it may."""
    data = output.get("data")
    if "".join((data or {}).get("text/html", "")).startswith(PROGRESS_MARK):
        return None
    if data is None or WIDGET not in data:
        return output
    del data[WIDGET]
    return output if set(data) - {"text/plain"} else None


def _timings(worked_seconds: float) -> dict[str, float]:
    return {"queued_s": 0.0, "kernel_s": 0.0, "cells_s": worked_seconds, "render_s": 0.0, "total_s": worked_seconds}


def _main(arguments: Sequence[str]) -> int:
    """``python -m runbook.broker.publish``: for a notebook without a broker; JSON in, JSON out."""
    import getpass
    import sys

    from runbook import settings as settings_module
    from runbook.reporting.archive import open_archive

    try:
        settings = settings_module.load()
        worked = Worked.model_validate_json(sys.stdin.read())
        done = asyncio.run(publish(worked, settings, open_archive(settings), actor=f"person:{getpass.getuser()}"))
    except ValidationError as error:
        where = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        done = {"error": f"what was handed in is no run of ours: {where}", "remedy": ""}
    except RunbookError as error:
        done = {"error": error.message, "remedy": error.remedy}
    sys.stdout.write(json.dumps(done) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(_main(()))

"""Records what a runbook reads of each fault, for the tests of the rules: ``python -m tests.record RUNBOOK [FAULT …]``.

Each fault is injected for real, the notebook is run on it, and what it read is kept under ``unit/diagnosis/recorded``
with the parameters it ran under. Do this again when a probe changes; the tests then hold the rules against it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from runbook import catalog, recording
from runbook.catalog import Runbook
from runbook.execution.execute import RunRequest, execute
from runbook.reporting.archive import READINGS, Archive
from runbook.sandbox import Sandbox
from runbook.sandbox.faults import inject, known, plan, systems
from runbook.settings import from_plain
from runbook.store.ids import new_run_id

RECORDED = Path(__file__).parent / "unit" / "diagnosis" / "recorded"


def record(runbook: Runbook, fault: str, sandbox: Sandbox, scratch: Path) -> None:
    """Inject ``fault``, run, keep the readings and the parameters."""
    planned = plan(fault, causes=runbook.causes)
    if lacking := planned.missing():
        print(f"{fault}: skipped, {lacking}")
        return
    with inject(planned, sandbox) as injected:
        settings = sandbox.settings()
        for section, values in injected.settings.items():
            settings[section] = settings.get(section, {}) | dict(values)
        named = {
            p: injected.labels[label] for p, label in runbook.parameters_from_alert.items() if label in injected.labels
        }
        parameters = {"samples": 3, "sample_seconds": 0.5} | dict(planned.scaled) | named
        request = RunRequest(run_id=new_run_id(), runbook=runbook.name, parameters=parameters)
        result = execute(request, from_plain(settings), archive=Archive(scratch))
    taken = recording.load(Path(result["report"]["html"]).with_name(READINGS))
    # Where this machine keeps its Python is nobody's business.
    readings = recording.parse(recording.dump(reading).replace(sys.prefix, "/opt/app") for reading in taken)
    kept = RECORDED / runbook.name
    kept.mkdir(exist_ok=True)
    (kept / f"{fault}.jsonl.gz").write_bytes(recording.pack(readings))
    (kept / f"{fault}.json").write_text(json.dumps(result["parameters"], indent=1) + "\n", encoding="utf-8")
    found = [(v["cause"], v["tier"]) for v in result["verdict"] if v["tier"] in ("confirmed", "probable")]
    print(f"{fault}: {result['outcome']} {found}")


def main(name: str, *faults: str) -> None:
    runbook = catalog.load(name)
    with tempfile.TemporaryDirectory(prefix="runbook-record-") as place:
        directory = Path(place)
        with Sandbox(directory / "sandbox", systems=systems(runbook), owned=True) as sandbox:
            for fault in faults or known(runbook):
                record(runbook, fault, sandbox, directory / "archive")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Records what a runbook reads of each fault, for the tests of the rules: ``python -m tests.record RUNBOOK [FAULT …]``.

Each fault is injected for real, the notebook is run on it, and what it read is kept under ``unit/diagnosis/recorded``
with the parameters it ran under. Do this again when a probe changes; the tests then hold the rules against it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from runbook import catalog, recording
from runbook.catalog import Runbook
from runbook.execution.execute import RunRequest, execute
from runbook.execution.kernels import KernelPool
from runbook.reporting.archive import READINGS, Archive
from runbook.result import Reading
from runbook.sandbox import Sandbox, laid_over
from runbook.sandbox.faults import inject, known, plan, systems
from runbook.settings import from_plain
from runbook.store.ids import new_run_id

RECORDED = Path(__file__).parent / "unit" / "diagnosis" / "recorded"


HOST_WIDE = ("disk", "written_files", "log_files", "deleted_files", "old_files", "large_files", "many_files",
             "hidden_files", "disk_directories", "places", "local_uploads", "sockets_listening")  # fmt: skip
"""Readings that list files, filesystems and sockets of the whole machine."""
EVERYWHERE = ("/", "/dev/shm", "/var/log")


def of_the_sandbox(readings: Sequence[Reading], directory: Path) -> list[Reading]:
    """The readings without what else lies and runs on this machine, and where it keeps things: nobody's business.

    Files, filesystems and sockets of others are left out. Their processes stay, since what they hold is part of the
    picture, but lose their names.
    """
    programs: dict[str, str] = {}

    def ours(name: str, row: Any) -> bool:
        if row.get("reason"):  # of a host that could not be asked
            return True
        if name == "sockets_listening":
            return str(row.get("command")).startswith(sys.prefix)
        place = str(row.get("path") or row.get("directory") or row.get("mount") or "")
        return place in EVERYWHERE or place == str(directory) or place.startswith(f"{directory}/")

    def nameless(row: Any) -> Any:
        command = row.get("command") if isinstance(row, dict) and "pid" in row else None
        if not isinstance(command, str) or command.startswith((sys.prefix, "postgres", "ffmpeg", "/opt/app")):
            return row
        program = Path(command.split(" ", 1)[0]).name
        return row | {"command": programs.setdefault(program, f"program-{len(programs) + 1}")}

    kept = [
        replace(r, value=[nameless(row) for row in r.value if r.name not in HOST_WIDE or ours(r.name, row)])
        if isinstance(r.value, list) else r for r in readings
    ]  # fmt: skip
    hidden = {sys.prefix: "/opt/app", str(directory): "/srv/sandbox"} | dict.fromkeys(_own_cgroups(), "/session")
    lines = (recording.dump(reading) for reading in kept)
    return recording.parse(reduce(lambda line, at: line.replace(at, hidden[at]), hidden, line) for line in lines)


def _own_cgroups() -> list[str]:
    """Paths of the cgroups that this process itself is in, the longest first."""
    paths = {line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    return sorted(paths - {"/"}, key=len, reverse=True)


def record(runbook: Runbook, fault: str, sandbox: Sandbox, scratch: Path, pool: KernelPool) -> None:
    """Inject ``fault``, run, keep the readings and the parameters."""
    planned = plan(fault, causes=runbook.causes)
    if lacking := planned.missing():
        print(f"{fault}: skipped, {lacking}")
        return
    with inject(planned, sandbox) as injected:
        settings = laid_over(sandbox.settings(), injected.settings)
        named = {
            p: injected.labels[label] for p, label in runbook.parameters_from_alert.items() if label in injected.labels
        }
        parameters = {"samples": 3, "sample_seconds": 0.5} | dict(planned.scaled) | named
        request = RunRequest(run_id=new_run_id(), runbook=runbook.name, parameters=parameters)
        result = execute(request, from_plain(settings), archive=Archive(scratch), pool=pool)
    taken = recording.load(Path(result["report"]["html"]).with_name(READINGS))
    readings = of_the_sandbox(taken, sandbox.directory.resolve())
    kept = RECORDED / runbook.name
    kept.mkdir(exist_ok=True)
    (kept / f"{fault}.jsonl.gz").write_bytes(recording.pack(readings))
    told = json.dumps(result["parameters"], indent=1).replace(str(sandbox.directory.resolve()), "/srv/sandbox")
    (kept / f"{fault}.json").write_text(told + "\n", encoding="utf-8")
    found = [(v["cause"], v["tier"]) for v in result["verdict"] if v["tier"] in ("confirmed", "probable")]
    print(f"{fault}: {result['outcome']} {found}")


def main(name: str, *faults: str) -> None:
    runbook = catalog.load(name)
    with tempfile.TemporaryDirectory(prefix="runbook-record-") as place:
        directory = Path(place)
        with (
            KernelPool(1) as pool,
            Sandbox(directory / "sandbox", systems=systems(runbook), owned=True) as sandbox,
        ):
            for fault in faults or known(runbook):
                record(runbook, fault, sandbox, directory / "archive", pool)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The two ways from the same notebook and parameters to an HTML report: from the shell, and by an alert."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from runbook import catalog

RUNBOOK = "db_connection_exhaustion"
BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 300.0


def environment(scratch: Path, settings: dict[str, Any]) -> dict[str, str]:
    """What both sides run with: the sandbox's settings, quick sampling, compiled modules kept."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RUNBOOK_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    sections = {
        f"RUNBOOK_{section}__{key}".upper(): value if isinstance(value, str) else json.dumps(value)
        for section, values in settings.items()
        for key, value in values.items()
        if section != "discord"
    }
    return {
        **kept,
        **sections,
        "PYTHONPYCACHEPREFIX": str(scratch / "pycache"),
        "PATH": f"{BIN}:{kept.get('PATH', '')}",
        "RUNBOOK_DATA_DIR": str(scratch / "data"),
        "RUNBOOK_SERVER__PORT": "0",
        "RUNBOOK_THRESHOLDS": json.dumps({RUNBOOK: {"samples": 1}}),
    }


class Shell:
    """``papermill`` and ``jupyter nbconvert``, as anybody would type them."""

    def __init__(self, scratch: Path, env: dict[str, str]) -> None:
        self._scratch = scratch
        self._env = env
        self._numbers = itertools.count(1)

    def start(self, parameters: dict[str, Any]) -> subprocess.Popen[bytes]:
        """The pipeline, running."""
        out = self._scratch / f"shell-{next(self._numbers)}.ipynb"
        given = " ".join(f"-p {name} {value}" for name, value in parameters.items())
        source = catalog.load(RUNBOOK).path
        script = (
            f"papermill --no-progress-bar '{source}' '{out}' {given} && "
            f"jupyter nbconvert --log-level ERROR --to html '{out}'"
        )
        quiet = subprocess.DEVNULL
        return subprocess.Popen(["sh", "-ec", script], env=self._env, stdout=quiet, stderr=quiet)

    def seconds(self, parameters: dict[str, Any]) -> float:
        """One report, timed."""
        began = time.perf_counter()
        if self.start(parameters).wait(PATIENCE_SECONDS) != 0:
            raise RuntimeError("the shell pipeline failed")
        return time.perf_counter() - began


class Service:
    """``runbook serve``, alerts in, reports out."""

    def __init__(self, scratch: Path, env: dict[str, str]) -> None:
        self._archive = scratch / "data" / "archive"
        self._log = (scratch / "serve.log").open("w+")
        self._numbers = itertools.count(1)
        self._process = subprocess.Popen(
            [str(BIN / "runbook"), "serve"], env=env, stdout=subprocess.DEVNULL, stderr=self._log
        )
        self._url = self._await_url(scratch / "serve.log")

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._log.close()

    def alert(self) -> str:
        """A new firing, accepted: its run."""
        number = next(self._numbers)
        body = {
            "name": "database_connections",
            "labels": {"instance": f"bench-{number}"},
            "starts_at": datetime.now(UTC).isoformat(),
        }
        (accepted,) = self._post("/alerts/generic", body)["alerts"]
        if accepted["fate"] != "queued":
            raise RuntimeError(f"the alert was {accepted['fate']}, not queued")
        return str(accepted["run_id"])

    def order(self, parameters: dict[str, Any]) -> str:
        """A run with these parameters, accepted."""
        row = self._post("/api/runs", {"runbook": RUNBOOK, "parameters": parameters})
        return str(row["run_id"])

    def await_report(self, run_id: str) -> None:
        """Return when its report is in the archive, which appears there whole."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not list(self._archive.glob(f"*/*/*/{run_id}/report.html")):
            if time.monotonic() > give_up_at or self._process.poll() is not None:
                raise RuntimeError(f"no report of run {run_id}")
            time.sleep(0.003)

    def seconds(self, parameters: dict[str, Any] | None = None) -> float:
        """One report from accepted alert, or accepted order with ``parameters``, to archive, timed."""
        run_id = self.alert() if parameters is None else self.order(parameters)
        began = time.perf_counter()
        self.await_report(run_id)
        return time.perf_counter() - began

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self._url + path, data, headers), timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def _await_url(self, log: Path) -> str:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up_at and self._process.poll() is None:
            for line in log.read_text().splitlines():
                if line.startswith("listening on "):
                    return line.removeprefix("listening on ").strip()
            time.sleep(0.05)
        raise RuntimeError(f"the service did not start: {log.read_text()[-400:]}")

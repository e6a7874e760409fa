"""``python -m tests.bench``: how much faster an alert becomes a report than by hand from the shell.

Both sides run the same notebook with the same parameters against the same sandbox database, alternating, after one
round that does not count (it compiles modules and fills caches on both sides). Printed are medians and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from rich.console import Console

from runbook import catalog
from runbook.sandbox.sandbox import DATABASE, Sandbox
from tests.bench.sides import RUNBOOK, Service, Shell, environment

console = Console(highlight=False)

REST_SECONDS = 2.0
"""Before each measurement: what the last one left to do in the background is not the next one's."""


def alternating(rounds: int, first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
    """Medians of both, measured in turn; the first round is thrown away."""
    measured: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        time.sleep(REST_SECONDS)
        one = first()
        time.sleep(REST_SECONDS)
        measured.append((one, second()))
    return statistics.median(m[0] for m in measured[1:]), statistics.median(m[1] for m in measured[1:])


def report(label: str, slow: tuple[str, float], fast: tuple[str, float], budget: str) -> None:
    ratio = slow[1] / fast[1]
    console.print(f"[bold]{label}[/bold]")
    for name, seconds in (slow, fast):
        console.print(f"  {name:<44} {seconds:8.3f} s")
    console.print(f"  {'ratio':<44} {ratio:8.1f} ×   ({budget})")


def storm(shell: Shell, service: Service, reports: int) -> tuple[float, float]:
    """Seconds for one report, two at a time, of the shell pipeline and of the service."""
    began = time.perf_counter()
    pairs = max(1, reports // 8)
    for _ in range(pairs):
        for running in [shell.start({"samples": 1}) for _ in range(2)]:
            running.wait()
    by_shell = (time.perf_counter() - began) / (2 * pairs)
    began = time.perf_counter()
    for run_id in [service.alert() for _ in range(reports)]:
        service.await_report(run_id)
    return by_shell, (time.perf_counter() - began) / reports


def command_seconds(*command: str) -> Callable[[], float]:
    def measure() -> float:
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of the main comparison")
    parser.add_argument("--storm", type=int, default=24, help="alerts of the storm; 0 = none")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    defaults = {name: catalog.load(RUNBOOK).parameters[name].default for name in ("samples", "sample_seconds")}
    with tempfile.TemporaryDirectory(prefix="runbook-bench-") as directory:
        scratch = Path(directory)
        scratch.chmod(0o755)  # the embedded servers run as another user when we are root
        with Sandbox(scratch / "sandbox", systems=DATABASE, owned=True) as box:
            env = environment(scratch, box.settings())
            shell = Shell(scratch, env)
            with Service(scratch, env) as service:
                compare(asked.rounds, asked.storm, shell, service, defaults)
    python = sys.executable
    pandas, helped = alternating(
        asked.rounds,
        command_seconds(python, "-c", "import pandas"),
        command_seconds(str(Path(python).parent / "runbook"), "--help"),
    )
    report("start-up", ("python -c 'import pandas'", pandas), ("runbook --help", helped), "budget ≥ 3.3")


def compare(rounds: int, alerts: int, shell: Shell, service: Service, defaults: dict[str, float]) -> None:
    """Print the three comparisons that need the service."""
    slow, fast = alternating(rounds, lambda: shell.seconds({"samples": 1}), service.seconds)
    names = ("papermill + jupyter nbconvert", "alert accepted → report archived, warm")
    report("one report, samples=1", (names[0], slow), (names[1], fast), "budget ≥ 15, aim 30")
    slow, fast = alternating(1, lambda: shell.seconds(defaults), lambda: service.seconds(defaults))
    report(f"one report, default sampling {defaults}", (names[0], slow), (names[1], fast), "no budget")
    if alerts:
        slow, fast = storm(shell, service, alerts)
        report("storm, two at a time, for each report", (names[0], slow), (names[1], fast), "budget ≥ 10")


if __name__ == "__main__":
    main()

"""Every way in which a run can end leaves a report that says how it ended, and what was known until then."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

import pytest

from runbook.execution.course import Progress
from runbook.execution.kernels import KernelPool
from tests.integration.execution.toys import CONCLUDE, READ, Bench, executed, statuses

KILL = "import os, signal, time\nprint('last words')\ntime.sleep(0.4)\nos.kill(os.getpid(), signal.SIGKILL)"


def not_checked(result: dict[str, Any]) -> dict[str, str]:
    return {item["source"]: item["reason"] for item in result["not_checked"]}


def texts(book: Any) -> str:
    return "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", []))


def test_a_run_that_concludes_has_the_findings_that_it_displayed(bench: Bench, pool: KernelPool) -> None:
    result = bench.run(READ, ("Verdict", CONCLUDE), pool=pool, incident_id="inc-1")
    assert (result["state"], result["error"], result["outcome"]) == ("succeeded", None, "healthy")
    assert result["impact"] == "unknown"
    assert list(result)[:8] == [
        "schema", "run_id", "runbook", "title", "severity", "parameters", "alert", "incident_id",
    ]  # fmt: skip
    assert result["parameters"] == {"window_minutes": 30, "note": "", "names": []}
    assert set(result["timings"]) == {"queued_s", "kernel_s", "cells_s", "render_s", "total_s"}
    assert set(statuses(executed(result))) == {"completed"}


def test_a_killed_kernel_fails_the_run_at_the_cell_and_the_driver_concludes_from_the_recording(
    bench: Bench, pool: KernelPool
) -> None:
    result = bench.run(READ, ("Lock waits", KILL), ("Verdict", CONCLUDE), pool=pool)
    assert result["state"] == "failed"
    assert result["error"]["cell"] == "5 · Lock waits"
    assert result["error"]["name"] == "KernelDied"
    assert "signal 9" in result["error"]["message"]
    assert result["symptom"]["value"] == 7
    book = executed(result)
    assert statuses(book) == ["completed"] * 4 + ["failed", "pending"]
    assert book.metadata.papermill["exception"] is True
    assert "last words" in texts(book)
    assert [o.ename for o in book.cells[-3].outputs if o.output_type == "error"] == ["KernelDied"]


def test_a_kernel_that_exits_is_reported_with_its_exit_code(bench: Bench) -> None:
    result = bench.run(READ, ("Leaving", "import os\nos._exit(3)"))
    assert result["error"] == {
        "cell": "5 · Leaving", "name": "KernelDied", "message": "the kernel process ended with exit code 3",
    }  # fmt: skip


def test_the_deadline_of_the_whole_run_ends_a_cell_that_hangs(bench: Bench, pool: KernelPool) -> None:
    result = bench.run(
        READ, ("Too slow", "import time\nprint('begun')\ntime.sleep(600)"), CONCLUDE, timeout_seconds=2, pool=pool
    )
    assert (result["state"], result["error"]["name"]) == ("failed", "DeadlineExceeded")
    assert result["error"]["cell"] == "5 · Too slow"
    assert "begun" in texts(executed(result))
    assert result["symptom"]["value"] == 7


def test_a_cancelled_run_is_archived_as_cancelled(bench: Bench, pool: KernelPool) -> None:
    cancel = threading.Event()

    def cancel_when_waiting(told: Progress) -> None:
        if told.title == "Waiting":
            threading.Timer(0.2, cancel.set).start()

    result = bench.run(
        READ,
        ("Waiting", "import time; time.sleep(600)"),
        CONCLUDE,
        pool=pool,
        cancel=cancel,
        progress=cancel_when_waiting,
    )
    assert (result["state"], result["error"]["name"], result["error"]["cell"]) == (
        "cancelled", "Cancelled", "5 · Waiting",
    )  # fmt: skip
    assert statuses(executed(result))[-2:] == ["failed", "pending"]


def test_a_run_cancelled_before_it_began_executes_nothing(bench: Bench, pool: KernelPool) -> None:
    cancel = threading.Event()
    cancel.set()
    result = bench.run(READ, CONCLUDE, pool=pool, cancel=cancel)
    assert result["state"] == "cancelled"
    assert "completed" not in statuses(executed(result))


def test_a_cell_that_raises_does_not_stop_the_run_and_is_listed_as_not_checked(bench: Bench, pool: KernelPool) -> None:
    result = bench.run(READ, ("Deploys", "raise LookupError('no deploys')"), ("Verdict", CONCLUDE), pool=pool)
    assert (result["state"], result["error"], result["outcome"]) == ("succeeded", None, "healthy")
    assert not_checked(result) == {"5 · Deploys": "LookupError: no deploys"}
    assert result["not_checked"][0]["state"] == "partial"
    book = executed(result)
    assert statuses(book) == ["completed"] * 4 + ["failed", "completed"]
    assert "encountered an exception here and stopped" not in str(book)


def test_sys_exit_in_a_cell_ends_that_cell_only(bench: Bench, pool: KernelPool) -> None:
    result = bench.run(READ, ("Leaving", "import sys\nsys.exit(0)"), ("Verdict", CONCLUDE), pool=pool)
    assert (result["state"], result["outcome"]) == ("succeeded", "healthy")
    assert list(not_checked(result)) == ["5 · Leaving"]


def test_a_notebook_without_a_verdict_fails_and_the_driver_concludes(bench: Bench, pool: KernelPool) -> None:
    result = bench.run(READ, pool=pool)
    assert (result["state"], result["error"]["name"]) == ("failed", "NoVerdict")
    assert result["symptom"]["value"] == 7


def test_a_conclusion_that_raises_is_the_error_of_the_run(bench: Bench, pool: KernelPool) -> None:
    result = bench.run(READ, ("Verdict", "raise RuntimeError('cannot conclude')"), pool=pool)
    assert result["state"] == "failed"
    assert result["error"] == {"cell": "5 · Verdict", "name": "RuntimeError", "message": "cannot conclude"}


def test_a_diagnosis_that_fails_as_well_leaves_an_undetermined_result_that_says_why(
    bench: Bench, pool: KernelPool
) -> None:
    result = bench.run(("Lock waits", KILL), pool=pool)
    assert (result["state"], result["outcome"], result["verdict"]) == ("failed", "undetermined", [])
    assert "KernelDied at 4 · Lock waits" in result["not_checked"][0]["reason"]


@pytest.mark.parametrize("name", ["os:system", "runbook.settings:load", "toy:missing", "toy:diagnose.__globals__"])
def test_only_functions_of_the_diagnosis_room_are_called_by_the_driver(
    bench: Bench, pool: KernelPool, name: str
) -> None:
    result = bench.run(READ, pool=pool, diagnosis=name)
    assert (result["state"], result["outcome"]) == ("failed", "undetermined")
    assert "LookupError" in str(result["not_checked"])


def test_a_chatty_cell_neither_fails_nor_fills_the_report(bench: Bench, pool: KernelPool) -> None:
    chatty = "for n in range(200_000):\n    print('line', n)"
    display = "from IPython.display import display\nfor n in range(5_000):\n    display(n)"
    result = bench.run(("Many lines", chatty), ("Many displays", display), ("Verdict", CONCLUDE), pool=pool)
    assert (result["state"], result["error"], result["not_checked"]) == ("succeeded", None, [])
    displays = executed(result).cells[-3].outputs
    assert len(displays) < 1_100
    assert "dropped" in displays[-1].text


def test_progress_tells_of_every_code_cell_in_words(bench: Bench, pool: KernelPool) -> None:
    told: list[Progress] = []
    bench.run(READ, ("Broken *step*", "1/0"), ("Verdict", CONCLUDE), pool=pool, progress=told.append)
    assert [(p.cell, p.state) for p in told if p.state != "running"] == [
        (1, "ok"), (2, "ok"), (3, "ok"), (4, "ok"), (5, "failed"), (6, "ok"),
    ]  # fmt: skip
    assert told[8] == Progress(cell=5, cells=6, title="Broken step", state="running")


def test_no_signal_handler_and_no_event_loop_of_the_caller_is_touched(bench: Bench, pool: KernelPool) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    seen: list[dict[int, Any]] = []
    bench.put(READ, CONCLUDE)

    async def inside_a_loop() -> dict[str, Any]:
        return bench.run(pool=pool)

    bench.run(pool=pool, progress=lambda _: seen.append({number: signal.getsignal(number) for number in handlers}))
    assert all(each == handlers for each in seen)
    assert asyncio.run(inside_a_loop())["state"] == "succeeded"


def test_two_runs_at_once_keep_apart(bench: Bench, pool: KernelPool) -> None:
    bench.put(READ, ("Echo", "import time\nfor _ in range(5):\n    print(note)\n    time.sleep(0.1)"), CONCLUDE)
    results: dict[str, dict[str, Any]] = {}

    def run(note: str) -> None:
        results[note] = bench.run(pool=pool, parameters={"note": note})

    threads = [threading.Thread(target=run, args=(note,)) for note in ("alpha", "omega")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for note, other in (("alpha", "omega"), ("omega", "alpha")):
        said = texts(executed(results[note]))
        assert said.count(note) == 5
        assert other not in said

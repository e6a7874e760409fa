"""The papermill engine ``runbook``: every way in which a run can end leaves a notebook that says how it ended.

Papermill's own engine marks a notebook whose kernel died, or whose cell timed out, as completed. Here the cell is
marked failed with an error output of its own, the cells after it stay pending, and what was executed is kept. A cell
that raises does not stop the others: a step that fails is a finding, not an end. Works from the command line
(``papermill --engine runbook``) without service or store, and in process with a kernel, a deadline and a cancel event.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import nbformat
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager

from runbook.execution.cells import code_cells, label, title
from runbook.execution.course import Course, Failure, Progress
from runbook.execution.kernel import Kernel
from runbook.result import RunState

LOOK_SECONDS = 0.05
"""How often a running cell is checked for a dead kernel, the deadline and a cancel."""
IOPUB_SECONDS = 30
"""How long the outputs of a cell that has replied may take to arrive; papermill's 4 s fail chatty cells (#426)."""
_quiet = logging.getLogger("runbook.execution.nbclient")
_quiet.setLevel(logging.WARNING)  # its debug messages are the cells' sources and outputs, before redaction
DRAIN_SECONDS = 0.1
MAX_OUTPUTS, MAX_OUTPUT_CHARACTERS = 1_000, 4_000_000
"""Of one cell; what comes after is dropped, and the cell says so."""


class _Stop(Exception):
    """The execution ends here."""

    def __init__(self, name: str, message: str, state: RunState = "failed") -> None:
        super().__init__(message)
        self.name, self.message, self.state = name, message, state


class RunbookEngine(Engine):
    """Registered as ``runbook``."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        *,
        kernel: Kernel | None = None,
        deadline: float | None = None,
        cancel: threading.Event | None = None,
        progress: Callable[[Progress], None] | None = None,
        course: Course | None = None,
        start_timeout: float = 60,
        execution_timeout: int | None = None,
        log_output: bool = False,
        stdout_file: Any = None,
        stderr_file: Any = None,
        **_: Any,
    ) -> None:
        """Execute the notebook; returns normally however its cells ended, except for a keyboard interrupt.

        Parameters
        ----------
        kernel
            A connected kernel; the caller closes it. Without one the notebook's own kernelspec is started, with the
            environment of this process.
        deadline
            For the whole run, on :func:`time.monotonic`'s clock; by default the notebook's ``timeout_seconds`` from
            now.
        cancel
            Ends the run soon after it is set.
        course
            Is told how it went.
        execution_timeout
            Seconds for a single cell.
        """
        course = course if course is not None else Course()
        course.notebook = nb_man.nb
        traits = {
            "timeout": execution_timeout,
            "log_output": log_output,
            "stdout_file": stdout_file,
            "stderr_file": stderr_file,
        }
        own = Kernel.of_spec(kernel_name) if kernel is None else None
        try:
            used = own.connect(start_timeout) if own is not None else kernel
            assert used is not None
            watch = _Watch(used, _deadline(nb_man.nb, deadline), cancel)
            _Conductor(nb_man, _Client(nb_man, watch, **traits), course, progress).execute()
        finally:
            if own is not None:
                own.close()


def _deadline(notebook: NotebookNode, given: float | None) -> float | None:
    if given is not None:
        return given
    seconds = notebook.metadata.get("runbook", {}).get("timeout_seconds")
    return time.monotonic() + float(seconds) if seconds else None


class _Watch:
    """Why an execution has to end, if it has to."""

    def __init__(self, kernel: Kernel, deadline: float | None, cancel: threading.Event | None) -> None:
        self.kernel = kernel
        self._deadline = deadline
        self._cancel = cancel

    def reason(self) -> _Stop | None:
        if self._cancel is not None and self._cancel.is_set():
            return _Stop("Cancelled", "the run was cancelled", "cancelled")
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return _Stop("DeadlineExceeded", "the run reached its time limit (timeout_seconds of the runbook)")
        if not self.kernel.alive():
            return _Stop("KernelDied", self.kernel.how_it_ended())
        return None


class _Client(PapermillNotebookClient):
    """Executes one cell at a time on a kernel that is there already."""

    def __init__(self, nb_man: NotebookExecutionManager, watch: _Watch, **traits: Any) -> None:
        super().__init__(
            nb_man,
            km=watch.kernel.manager,
            raise_on_iopub_timeout=True,
            iopub_timeout=IOPUB_SECONDS,
            allow_errors=True,
            coalesce_streams=True,
            store_widget_state=False,
            log=_quiet,
            **traits,
        )
        self.kc = watch.kernel.client
        self.watch = watch
        self._outputs = self._characters = 0

    def execute_one(self, cell: NotebookNode, index: int) -> dict[str, Any] | None:
        """Execute the cell; returns the error of its reply, if it raised."""
        self._outputs = self._characters = 0
        raised: list[dict[str, Any]] = []
        self.on_cell_error = lambda *, execute_reply, **_: raised.append(execute_reply["content"])
        try:
            self.watch.kernel.run(self.async_execute_cell(cell, index))
        except DeadKernelError:
            raise (self.watch.reason() or _Stop("KernelDied", self.watch.kernel.how_it_ended())) from None
        return raised[0] if raised else None

    async def _async_poll_kernel_alive(self) -> None:
        """End the cell as upstream does for a dead kernel, which it looks for once a second, also for other reasons."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.watch.reason() is not None:
                break
        await asyncio.sleep(DRAIN_SECONDS)  # what the cell said last is still on its way
        if self.task_poll_for_reply is not None:
            self.task_poll_for_reply.cancel()

    def output(self, outs: list[NotebookNode], msg: dict[str, Any], display_id: str, cell_index: int) -> Any:
        """Keep an output, unless the cell has had more than its share."""
        self._outputs += 1
        self._characters += len(str(msg["content"]))
        if self._outputs <= MAX_OUTPUTS and self._characters <= MAX_OUTPUT_CHARACTERS:
            return super().output(outs, msg, display_id, cell_index)
        notice = "[more output dropped: this cell wrote too much]\n"
        if not (outs and outs[-1].get("text", "").endswith(notice)):
            outs.append(nbformat.v4.new_output("stream", name="stderr", text=notice))
        return None


class _Conductor:
    """Goes through the cells, keeps papermill's metadata right, tells of progress."""

    def __init__(
        self,
        nb_man: NotebookExecutionManager,
        client: _Client,
        course: Course,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._manager = nb_man
        self._client = client
        self._course = course
        self._progress = progress
        self._cells = len(code_cells(nb_man.nb))
        self._number = 0

    def execute(self) -> None:
        """Every cell in turn, until one of them ends the execution."""
        for index, cell in enumerate(self._manager.nb.cells):
            is_code = cell.cell_type == "code"
            self._number += is_code
            self._manager.cell_start(cell, index)
            if is_code:
                self._tell(index, "running")
            try:
                ok = self._execute_cell(cell, index) if is_code else True
            except _Stop as stop:
                self._end(index, cell, stop)
                return
            except KeyboardInterrupt:
                self._end(index, cell, _Stop("Interrupted", "the run was interrupted", "interrupted"))
                raise
            except BaseException as error:
                self._end(index, cell, _Stop(type(error).__name__, str(error) or type(error).__name__))
                raise
            self._manager.cell_complete(cell, index)
            if is_code:
                self._tell(index, "ok" if ok else "failed")
        self._manager.nb.metadata["language_info"] = self._client.watch.kernel.language_info

    def _execute_cell(self, cell: NotebookNode, index: int) -> bool:
        if stop := self._client.watch.reason():
            raise stop
        try:
            error = self._client.execute_one(cell, index)
        except CellTimeoutError as late:
            if "shell.execute_reply" not in cell.metadata.get("execution", {}):
                raise _Stop("CellTimeout", str(late).splitlines()[0]) from None
            error = {"ename": "OutputIncomplete", "evalue": f"outputs still arriving after {IOPUB_SECONDS} s"}
        if error is None:
            return True
        name, message = str(error.get("ename", "")), str(error.get("evalue", ""))
        self._course.raised.append(Failure(cell=label(self._manager.nb, index), name=name, message=message))
        self._manager.cell_exception(cell, index)
        return False

    def _end(self, index: int, cell: NotebookNode, stop: _Stop) -> None:
        """Mark the cell as the one where it ended, in the notebook itself too."""
        failure = Failure(cell=label(self._manager.nb, index), name=stop.name, message=stop.message)
        self._course.ended, self._course.state = failure, stop.state
        if cell.cell_type == "code":
            shown = [f"{stop.name}: {stop.message}"]
            cell.outputs.append(nbformat.v4.new_output("error", ename=stop.name, evalue=stop.message, traceback=shown))
        self._manager.cell_exception(cell, index)
        self._manager.cell_complete(cell, index)
        self._tell(index, "failed")

    def _tell(self, index: int, state: Literal["running", "ok", "failed"]) -> None:
        if self._progress is not None:
            heading = title(self._manager.nb, index)
            self._progress(Progress(cell=self._number, cells=self._cells, title=heading, state=state))

"""papermill, called in process on a kernel that is there already: no path, no working directory, no progress bar."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import papermill
from nbformat import NotebookNode
from papermill.engines import papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.execute import remove_error_markers

from runbook.execution.course import Course, Progress
from runbook.execution.engine import RunbookEngine
from runbook.execution.kernel import Kernel

ENGINE = "runbook"


def execute_cells(
    notebook: NotebookNode,
    parameters: Mapping[str, Any],
    *,
    kernel: Kernel,
    course: Course,
    deadline: float,
    cancel: threading.Event | None,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Inject ``parameters`` and execute the cells; ``course`` then has the notebook and how it went.

    Parameters
    ----------
    parameters
        JSON values, checked before: papermill puts any other value, and any name, into the cell as it is.
    """
    papermill_engines.register(ENGINE, RunbookEngine)
    # It finds parameters by regular expressions, and warns of declared ones that those overlook.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        papermill.execute_notebook(
            notebook,
            None,
            parameters=dict(parameters),
            engine_name=ENGINE,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            request_save_on_cell_execute=False,
            autosave_cell_every=0,
            kernel=kernel,
            course=course,
            deadline=deadline,
            cancel=cancel,
            progress=progress,
        )
    except PapermillExecutionError:
        # The course says it better; the marker cells claim that execution stopped there, which it did not.
        if course.notebook is not None:
            course.notebook = remove_error_markers(course.notebook)

"""papermill in process, on a kernel that is there already: its steps without paths, progress bar and second writing.

``papermill.execute_notebook`` would also serialise the executed notebook to nowhere, and put marker cells into it that
claim execution stopped at the first cell that raised.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from nbformat import NotebookNode
from papermill.engines import papermill_engines
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from runbook.execution.course import Course, Progress
from runbook.execution.engine import RunbookEngine
from runbook.execution.kernel import Kernel

ENGINE = "runbook"
_PYTHON = {"kernel_name": "python3", "language": "python"}


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
    # By entry point, it would be looked up in the installed distribution's metadata once more.
    papermill_engines.register(ENGINE, RunbookEngine)
    loaded = load_notebook_node(notebook)
    if parameters:
        loaded = parameterize_notebook(loaded, dict(parameters), engine_name=ENGINE, **_PYTHON)
    papermill_engines.execute_notebook_with_engine(
        ENGINE,
        loaded,
        kernel_name=_PYTHON["kernel_name"],
        progress_bar=False,
        autosave_cell_every=0,
        kernel=kernel,
        course=course,
        deadline=deadline,
        cancel=cancel,
        progress=progress,
    )

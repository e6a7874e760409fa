"""What ``workers.restart`` runs: the worker of the sandbox in that directory is replaced by a healthy one."""

from __future__ import annotations

import sys
from pathlib import Path

from runbook.sandbox.sandbox import Sandbox


def main() -> None:
    """Restart the worker; returns when the new one is ready."""
    (directory,) = sys.argv[1:]
    Sandbox(Path(directory)).restart_worker()


if __name__ == "__main__":
    main()

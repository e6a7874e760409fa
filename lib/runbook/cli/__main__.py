"""``python -m runbook.cli``."""

from runbook.cli import main

main()

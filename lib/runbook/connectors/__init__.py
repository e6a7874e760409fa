"""One module per outside system; every fact from outside enters through :mod:`runbook.connectors.base`."""

"""The process beside JupyterLab that may act. Store, log and acting credentials are here; no kernel has any of them."""

"""Execution: warm kernels, the papermill engine, and one run from request to archived report."""

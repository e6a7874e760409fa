"""Guarded changes: planned on what is there now, approved by somebody, applied once, verified, undone if need be.

A diagnosis proposes; nothing here decides. :class:`~runbook.actions.acting.Acting` is the one way to act, and lives in
the processes that may: the command line, the service, a worker under a policy, the broker beside JupyterLab. No kernel
imports this package. Source of the guards: reference fault model, section 2.
"""

"""Faults by id, and how to inject one, several at once, or one under a handicap.

``P01`` is one fault, ``P01+P02`` a compound, ``healthy`` none at all, ``P01~no_pg_monitor`` a fault that the diagnosis
has to look at with less than it needs. What was injected heals completely, or :func:`inject` says what is left.
"""

from runbook.sandbox.faults.registry import SCENARIOS, FaultPlan, Injected, inject, known, plan, suits, systems

__all__ = ["SCENARIOS", "FaultPlan", "Injected", "inject", "known", "plan", "suits", "systems"]

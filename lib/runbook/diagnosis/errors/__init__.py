"""R1, high error rate: readings of one run in, findings out.

The split that concentrates the errors is the diagnosis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runbook.diagnosis import conclusion
from runbook.diagnosis.errors import backing, load, places, releases, vendors
from runbook.diagnosis.errors.changes import Changes
from runbook.diagnosis.errors.facts import Facts
from runbook.diagnosis.errors.limits import Limits
from runbook.diagnosis.errors.prevention import prevention
from runbook.diagnosis.errors.proposals import propose
from runbook.diagnosis.errors.relations import edges
from runbook.diagnosis.errors.rollout import last_two
from runbook.diagnosis.errors.symptom import impact, symptom
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.verdict import Cause
from runbook.result import Findings, Reading

__all__ = ["diagnose", "last_two", "prevention"]

NO_HEALTHY = ""
"""This runbook has no cause that stands for *nothing wrong*."""


def diagnose(readings: Sequence[Reading], parameters: Mapping[str, Any]) -> Findings:
    """The findings of runbook *high_error_rate*; the same readings give the same findings."""
    taken = Readings(readings)
    facts = Facts(taken, Limits.of(parameters))
    changes = Changes(facts)
    causes = _causes(facts, changes)
    return conclusion.findings(
        taken, causes, edges(facts, changes, causes), symptom=symptom(facts), impact=lambda _: impact(facts),
        propose=lambda verdicts: propose(verdicts, facts, changes), healthy=NO_HEALTHY, breached=facts.breached,
        peaked=facts.peaked, sufficient=facts.sufficient is not False,
    )  # fmt: skip


def _causes(facts: Facts, changes: Changes) -> list[Cause]:
    """Every cause; those that need to know whether anything else explains the errors come last."""
    specific = [
        backing.database_connections(facts),
        backing.database_down(facts),
        backing.schema_drift(facts, changes),
        vendors.outage(facts),
        vendors.credential(facts),
        vendors.throttling(facts),
        load.traffic_surge(facts, changes),
        load.one_client(facts),
        places.edge_or_proxy(facts),
        places.bad_instance(facts),
        vendors.names_or_certificates(facts),
        backing.redis_or_queue(facts),
        backing.disk_or_memory(facts),
        load.artefact(facts),
        vendors.discord_only(facts),
        releases.bad_data(facts, changes),
    ]
    release = releases.bad_release(facts, changes, others=conclusion.any_other(specific, facts.breached))
    others = conclusion.any_other([*specific, release], facts.breached)
    return [*specific, release, releases.changed_configuration(facts, changes, others=others)]

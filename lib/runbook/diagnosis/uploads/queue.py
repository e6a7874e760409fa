"""V12, queue and workers: by which signature the queue stands still. Refers to the runbook of queues (R9)."""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.queues import signatures as queue
from runbook.diagnosis.queues.jobs import ACTIVE, FAILED, STATE
from runbook.diagnosis.queues.signatures import Signature
from runbook.diagnosis.uploads.facts import Facts
from runbook.diagnosis.verdict import Cause


def queue_stands_still(facts: Facts) -> Cause:
    """V12: jobs wait or hang, since of their workers none works.

    Gate: one of the signatures of a queue that stands still. Clause: jobs wait or hang for it. Unknown when the queue
    cannot be read or is not there by its name, and when names of clients are hidden while nothing else shows.
    Source: R3, V12; R9, Q01–Q09.
    """
    bench, jobs = Bench("V12", facts.readings), facts.jobs
    found = signatures(facts)
    known = jobs.state is not None and jobs.waiting is not None
    blind = known and not found and jobs.no_worker is None and jobs.waiting != 0 and not jobs.draining
    first = found[0] if found else None
    gate = True if first else None if not known or blind else False
    held = max((signature.jobs for signature in found), default=0)
    details: dict[str, Any] = {}
    if first is not None:
        details = {"refers_to": first.id, "signature": first.words, "also": [s.id for s in found[1:]],
                   "queue": (jobs.state or {}).get("queue"), "waiting": jobs.waiting, "active": jobs.count("active"),
                   "workers": (jobs.state or {}).get("workers"), "oldest_waiting_seconds": jobs.oldest_seconds,
                   **first.details}  # fmt: skip
    reason = jobs.absent or ("names of clients are hidden, so that workers cannot be seen" if blind else "")
    return Cause(
        id="V12",
        name=f"queue stands still: {first.words}" if first else "queue or worker",
        applicable=jobs.configured,
        gate=bench.fact("signature", "the queue stands still", gate, value=first.words if first else None,
                        otherwise="refutes", rests_on=(STATE, ACTIVE, FAILED, "redis_ping"), reason=reason),
        clauses=(
            bench.weigh("jobs", "jobs that wait or hang", held if first else jobs.waiting if known else None,
                        at_least=1, rests_on=(STATE, ACTIVE)),
        ),
        share=min(1.0, held / facts.total) if facts.total and held else 0.0,
        details=details,
    )  # fmt: skip


def signatures(facts: Facts) -> list[Signature]:
    """Every signature that shows, the most telling first."""
    least = facts.limits.min_bad
    refuses = queue.redis_refuses(facts.readings, facts.bad) if facts.bad >= least else None
    failing = None if facts.content.recovered else queue.failing(facts.jobs, least)
    found = [refuses, *(look(facts.jobs) for look in queue.STANDING), failing]
    return [signature for signature in found if signature is not None]

"""The symptom of the health-check runbook, re-measured: the endpoint outside, the instances, what the body says.

Source: reference fault model, section 1 and R7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runbook.diagnosis.face import Face
from runbook.diagnosis.face import is_breached as is_breached
from runbook.diagnosis.health.facts import Facts
from runbook.diagnosis.health.places import Place
from runbook.result import Symptom


def faces(facts: Facts) -> list[Face]:
    """Every face, the most telling first."""
    return [face(facts) for face in FACES]


def shown(all_faces: Sequence[Face]) -> Symptom:
    """The symptom as the report shows it: the first face that is breached, else the endpoint's."""
    breached = [face for face in all_faces if face.breached]
    return (breached or list(all_faces))[0].symptom(is_breached(all_faces))


def _percent(place: Place | None) -> float | None:
    return None if place is None or place.failing is None else round(100 * place.failing, 1)


def _endpoint(facts: Facts) -> Face:
    """The checked endpoint, or the same path where users come in: whichever fails more often."""
    known = [p for p in facts.outside if p.failing is not None]
    place = max(known, key=lambda p: p.failing or 0.0, default=facts.checked)
    value = _percent(place)
    return Face(
        label=f"looks at {place.url} that failed" if place is not None else "looks at the health endpoint that failed",
        unit="%",
        value=value,
        threshold=round(100 * facts.limits.failing_share, 1),
        breached=None if place is None else place.bad,
        peak=value,
    )


def _instances(facts: Facts) -> Face:
    known = facts.instances and [p for p in facts.instances if p.bad is not None]
    bad = [p for p in facts.instances if p.bad]
    peak = sum(1 for p in facts.instances if p.failing)
    breached: bool | None = bool(bad)
    if not bad and (facts.cut_off or len(known or []) < len(facts.instances)):
        # Cut off from here, they are left to the endpoint outside, which stands before them.
        breached = False if facts.checked is not None and facts.checked.passes and facts.checked.expected else None
    return Face(
        label=f"instances of {len(facts.instances)} that fail" if facts.instances else "instances that fail",
        unit="",
        value=float(len(bad)) if facts.instances else None,
        threshold=1.0,
        breached=breached,
        peak=float(peak) if facts.instances else None,
    )


FACES: tuple[Callable[[Facts], Face], ...] = (_endpoint, _instances)

"""One run's view of the application's health: outside, inside, and on the hosts that it runs on.

Outside is where the checker asks; inside is each instance at its own address. An instance that cannot be reached from
here although somebody answers outside is unknown, not ill: its network may be none of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runbook.diagnosis.health.limits import Limits
from runbook.diagnosis.health.machine import Machine
from runbook.diagnosis.health.places import OUR_WAY, WRONG_QUESTION, Place
from runbook.diagnosis.readings import Readings

WALK = "walk"
LOG = "app_errors"


@dataclass(frozen=True)
class Facts:
    """The endpoints as this run saw them."""

    readings: Readings
    limits: Limits

    @cached_property
    def machine(self) -> Machine:
        return Machine(self.readings, self.limits)

    @cached_property
    def _places(self) -> Mapping[tuple[str, str, str], Place]:
        rows: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
        for reading in self.readings.series(WALK):
            for row in reading.rows if reading.known else ():
                key = (str(row.get("vantage")), str(row.get("endpoint")), str(row.get("url")))
                rows.setdefault(key, []).append(row)
        return {key: Place(found, self.limits) for key, found in rows.items()}

    def _of(self, vantage: str, *endpoints: str) -> list[Place]:
        return [p for (v, e, _), p in self._places.items() if v == vantage and (e in endpoints or not endpoints)]

    # -- outside ----------------------------------------------------------------------------------------------------

    @cached_property
    def configured(self) -> bool:
        reading = self.readings.last(WALK)
        return reading is not None and reading.state != "not_configured"

    @cached_property
    def checked(self) -> Place | None:
        """What the checker asks; the public address where nobody named an endpoint."""
        return next(iter(self._of("outside", "check", "root")), None)

    @cached_property
    def outside(self) -> list[Place]:
        """The checked endpoint, and the same path where users come in."""
        return self._of("outside", "check", "root", "public")

    @cached_property
    def first_bad(self) -> Place | None:
        """The first of those that fails."""
        return next((p for p in self.outside if p.bad), None)

    @cached_property
    def others(self) -> list[Place]:
        """The other endpoints outside."""
        return self._of("outside", "live", "ready", "health")

    # -- inside -----------------------------------------------------------------------------------------------------

    @cached_property
    def instances(self) -> list[Place]:
        """The checked path at each instance, in the order of the settings; those that are cut off from us left out."""
        return [p for p in self._of("inside", "check") if not self._cut_off(p)]

    @cached_property
    def cut_off(self) -> list[Place]:
        """Instances that cannot be reached from here while somebody answers outside, or a neighbour of theirs does."""
        return [p for p in self._of("inside", "check") if self._cut_off(p)]

    def _cut_off(self, place: Place) -> bool:
        on_the_way = [r["layer"] in ("dns", "tcp") and (r["layer"] == "dns" or r.get("code") in OUR_WAY)
                      for r in place.looks]  # fmt: skip
        if self._other_host(place):
            return True
        if not place.most(on_the_way) or self.machine.full(place) or self.machine.holder(place) is not None:
            return False
        return any(p.answers for p in self.outside)

    def _other_host(self, place: Place) -> bool:
        """Whether it speaks of the question (404, a redirect) as every instance does, and outside nobody does.

        Then it wants the public host name, which we do not send to an instance: nothing is known of its health.
        """
        inside = self._of("inside", "check")
        return all(p.status in WRONG_QUESTION for p in [place, *inside]) and any(
            p.answers and p.status not in WRONG_QUESTION for p in self.outside
        )

    @cached_property
    def asked(self) -> list[Place]:
        """Where the application itself was asked: its instances, else the checked endpoint."""
        if self.instances:
            return self.instances
        return [self.checked] if self.checked is not None and not self.cut_off else []

    @cached_property
    def known(self) -> list[Place]:
        return [p for p in self.asked if p.bad is not None]

    @cached_property
    def affected(self) -> list[Place]:
        """Of those, the unhealthy ones."""
        return [p for p in self.asked if p.bad]

    @cached_property
    def well(self) -> list[Place]:
        return [p for p in self.asked if p.passes]

    @property
    def unseen(self) -> bool:
        """Whether nothing at all is known of where the application itself was asked."""
        return not self.known

    @cached_property
    def blind(self) -> bool:
        """Whether nothing is known of any endpoint that tells of health."""
        return not any(p.bad is not None for p in [*self.asked, *self.outside])

    def live(self, place: Place) -> Place | None:
        """The liveness endpoint beside this one: at the same instance, or outside."""
        if place in self.instances:
            return next((p for p in self._of("inside", "live") if p.instance == place.instance), None)
        return next((p for p in self.others if p.endpoint == "live"), None)

    def beside(self, place: Place) -> list[Place]:
        """Other endpoints of the same instance, or outside."""
        if place in self.instances:
            found = self.live(place)
            return [] if found is None else [found]
        return [p for p in self.others if p.url != place.url]

    def share(self, places: Sequence[Place]) -> float:
        """What part of the application these are, 0–1; all of what is unhealthy is the whole symptom where all is."""
        if not places or not self.affected:
            return 0.0
        whole = len(self.known) if self.well else len(self.affected)
        return min(1.0, len(places) / whole)

    def why_not(self) -> str:
        """Why nothing is known of the application itself."""
        if self.cut_off:
            first = self.cut_off[0]
            why = (first.last or {}).get("reason")
            return f"instances cannot be reached from here ({first.instance}: {why})"
        reading = self.readings.last(WALK)
        if reading is not None and reading.known and self.checked is None and not self.instances:
            return "no health endpoint is configured"
        if reading is not None and reading.known:
            return "what is asked is not a URL"
        return ""

    # -- the application's log --------------------------------------------------------------------------------------

    def logged(self, *patterns: str) -> int | None:
        """Lines of the application's log within the window of these kinds; ``None`` when it was not read."""
        rows = self.readings.rows(LOG)
        if rows is None:
            return None
        return sum(int(r.get("count") or 0) for r in rows if r.get("pattern") in patterns)

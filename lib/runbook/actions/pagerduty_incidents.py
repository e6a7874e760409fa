"""PagerDuty: take an incident as one's own, or write a note to it, in the name of ``pagerduty.from_email``.

Source: contracts, section 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runbook.actions.attempts import left_alone, made_by, only_target, short_digest, tried
from runbook.actions.http_acting import ActingApi
from runbook.actions.kinds import Kind
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.connectors.http import segment
from runbook.result import Precondition

if TYPE_CHECKING:
    from runbook.settings import Settings

MAX_NOTE = 2000
"""Characters of a note."""


class Acknowledge(Kind):
    """``pagerduty.acknowledge``: somebody looks at it; only while it is still triggered."""

    #: It stops the escalation: a person has to be there.
    may_be_automatic = False

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        there = _PagerDuty(self.settings)
        incident = there.incident(_named(order))
        if incident["status"] != "triggered":
            raise Refused(f"nothing is left to do: incident {incident['id']} is {incident['status']}")
        target = _target(incident, f"acknowledged in the name of {there.sender}", before="triggered",
                         after="acknowledged")  # fmt: skip
        return Draft(
            targets=[target],
            preconditions=(Precondition(label="it is still triggered", holds=True, value=incident["status"]),),
            risks=("the escalation stops: nobody else is called until the acknowledgement times out",),
            undo="triggered again where it is still acknowledged, which calls whoever is on call anew",
        )

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        (target,) = plan.draft.targets
        return [self._become(target, expected="triggered", wanted="acknowledged")]

    def undo(self, plan: Plan, effects: Sequence[Effect]) -> list[Effect]:
        """See :meth:`Kind.undo`."""
        (target,) = plan.draft.targets
        return [self._become(target, expected="acknowledged", wanted="triggered")]

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        (target,) = plan.draft.targets
        status = _PagerDuty(self.settings).incident(target.name)["status"]
        return status != "triggered", f"incident {target.name} is {status}"

    def _become(self, target: Target, *, expected: str, wanted: str) -> Effect:
        there = _PagerDuty(self.settings)
        status = there.incident(target.name)["status"]
        if status != expected:
            return left_alone(target.name, f"it is {status} by now")
        return tried(target.name, f"it is {wanted}", lambda: there.become(target.name, wanted))


class Note(Kind):
    """``pagerduty.note``: what the run found, for whoever is on call."""

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        there = _PagerDuty(self.settings)
        incident = there.incident(_named(order))
        if incident["status"] == "resolved":
            raise Refused(f"incident {incident['id']} is resolved")
        content = str(only_target(order).get("content") or _told(order))[:MAX_NOTE]
        target = _target(incident, f"note: {content}", after=content)
        return Draft(
            # Another note to the same incident is no second one of this.
            targets=[replace(target, name=f"{target.name}/{short_digest(content)}")],
            preconditions=(Precondition(label="it is not resolved", holds=True, value=incident["status"]),),
            undo="irreversible: PagerDuty keeps every note",
        )

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        (target,) = plan.draft.targets
        there, number = _PagerDuty(self.settings), str(target.identity["incident"])
        if there.incident(number)["status"] == "resolved":
            return [left_alone(target.name, "it is resolved by now")]
        return [tried(target.name, "the note was written", lambda: there.note(number, str(target.after)))]

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        (target,) = plan.draft.targets
        made = made_by(effects, target.name)
        notes = _PagerDuty(self.settings).notes(str(target.identity["incident"]))
        there = any(one.get("content") == target.after and made in ("", one.get("id")) for one in notes)
        return there, f"the note is {'' if there else 'not '}there"


class _PagerDuty:
    """One account."""

    def __init__(self, settings: Settings) -> None:
        section = settings.pagerduty
        token, self.sender = section.token.get_secret_value() if section.token else "", section.from_email
        headers = {"Authorization": f"Token token={token}", "From": self.sender,
                   "Accept": "application/vnd.pagerduty+json;version=2"}  # fmt: skip
        lacking = "" if token and self.sender else "pagerduty.from_email" if token else "pagerduty.token"
        self._api = ActingApi("PagerDuty", section.base_url, headers=headers, secrets=[token], lacking=lacking)

    def incident(self, number: str) -> dict[str, Any]:
        """An incident, by its id."""
        found = self._api.look_object(f"/incidents/{segment(number)}", under="incident")
        if not found.get("id") or not found.get("status"):
            raise Refused("PagerDuty answers in another form than documented")
        return found

    def become(self, number: str, status: str) -> None:
        """Give an incident another status."""
        body = {"incident": {"type": "incident_reference", "status": status}}
        self._api.send("PUT", f"/incidents/{segment(number)}", body)

    def notes(self, number: str) -> list[dict[str, Any]]:
        """The notes of an incident."""
        return self._api.look_rows(f"/incidents/{segment(number)}/notes", under="notes")

    def note(self, number: str, content: str) -> str:
        """Write a note; its id."""
        said = self._api.send("POST", f"/incidents/{segment(number)}/notes", {"note": {"content": content}})
        note = said.get("note") if isinstance(said, dict) else None
        return str(note.get("id") or "") if isinstance(note, dict) else ""


def _named(order: Order) -> str:
    number = only_target(order).get("incident_id")
    if not number:
        raise Refused("it does not say which incident: an incident_id is needed")
    return str(number)


def _target(incident: Mapping[str, Any], change: str, *, before: Any = None, after: Any = None) -> Target:
    return Target(
        name=str(incident["id"]),
        identity={"incident": incident["id"], "status": incident["status"]},
        shown=f"incident {incident['id']} (#{incident.get('incident_number')}) is {incident['status']}: "
        f"{str(incident.get('title') or '')[:200]}",
        change=change, before=before, after=after,
    )  # fmt: skip


def _told(order: Order) -> str:
    symptom = order.symptom
    value = f" {symptom.get('label')}: {symptom.get('value')} {symptom.get('unit') or ''}".rstrip() if symptom else ""
    return f"Runbook {order.runbook}, run {order.run_id}: {order.cause} ({order.tier}).{value}"

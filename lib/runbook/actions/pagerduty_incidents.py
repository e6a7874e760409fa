"""PagerDuty: take an incident as one's own, or write a note to it, in the name of ``pagerduty.from_email``.

Source: contracts, section 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from runbook.actions.attempts import left_alone, made_by, only_target, short_digest, tried
from runbook.actions.http_acting import ActingApi
from runbook.actions.kinds import Kind, Said
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.connectors.http import Params, segment
from runbook.diagnosis.verdict import found
from runbook.errors import InvalidParameter
from runbook.result import Precondition

if TYPE_CHECKING:
    from runbook.settings import Settings

MAX_NOTE = 2000
"""Characters of a note."""
_INCIDENT = Said(means="the incident's id, as its address at PagerDuty ends", needed=True)


class Acknowledge(Kind):
    """``pagerduty.acknowledge``: somebody looks at it; only while it is still triggered."""

    #: It stops the escalation: a person has to be there.
    may_be_automatic = False
    may_be_ordered = True
    called = "Acknowledge the incident"
    said: ClassVar[Mapping[str, Said]] = {"incident_id": _INCIDENT}

    def completed(self, given: Mapping[str, Any], result: Mapping[str, Any]) -> Mapping[str, Any]:
        """See :meth:`Kind.completed`."""
        return _which(self.settings, given)

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

    may_be_ordered = True
    called = "Write a note to the incident"
    said: ClassVar[Mapping[str, Said]] = {
        "incident_id": _INCIDENT,
        "content": Said(means="the note; otherwise what the run found"),
    }

    def completed(self, given: Mapping[str, Any], result: Mapping[str, Any]) -> Mapping[str, Any]:
        """See :meth:`Kind.completed`."""
        causes = [f"{one['cause']} ({one['tier']})" for one in result.get("verdict") or [] if found(one["tier"])]
        told = _told(result["runbook"], result["run_id"], ", ".join(causes), result.get("symptom") or {})
        return {"content": told, **_which(self.settings, given)}

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        there = _PagerDuty(self.settings)
        incident = there.incident(_named(order))
        if incident["status"] == "resolved":
            raise Refused(f"incident {incident['id']} is resolved")
        content = str(only_target(order).get("content") or _told_by(order))[:MAX_NOTE]
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
        incident = self._api.look_object(f"/incidents/{segment(number)}", under="incident")
        if not incident.get("id") or not incident.get("status"):
            raise Refused("PagerDuty answers in another form than documented")
        return incident

    def open(self) -> list[dict[str, Any]]:
        """The newest incidents that are not resolved."""
        params: Params = {"statuses[]": ["triggered", "acknowledged"], "sort_by": "created_at:desc", "limit": 5}
        return self._api.look_rows("/incidents", params, under="incidents")

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


def _which(settings: Settings, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was said, where it names an incident; else which ones there are, to choose from: none is taken by itself."""
    if "incident_id" in given:
        return given
    listed = [f"{one.get('id')} ({str(one.get('title') or '')[:60]})" for one in _PagerDuty(settings).open()]
    raise InvalidParameter(
        "it does not say which incident", remedy=f"Say incident_id=… Open are: {', '.join(listed) or 'none'}"
    )


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


def _told_by(order: Order) -> str:
    return _told(order.runbook, order.run_id, f"{order.cause} ({order.tier})" if order.cause else "", order.symptom)


def _told(runbook: str, run_id: str, causes: str, symptom: Mapping[str, Any]) -> str:
    value = f" {symptom.get('label')}: {symptom.get('value')} {symptom.get('unit') or ''}".rstrip() if symptom else ""
    return f"Runbook {runbook}, run {run_id}{': ' if causes else ''}{causes}.{value}"

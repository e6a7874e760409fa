"""A silence for one alert in Alertmanager: exactly its labels, with an end, and expired again when it is undone.

A silence of an alert's labels also silences alerts that have these labels and more: where there is one now, nothing is
done. Never by a policy: who silences, knows. Source: contracts, section 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from runbook.actions.attempts import instant, left_alone, made_by, only_target, tried
from runbook.actions.http_acting import ActingApi
from runbook.actions.kinds import Kind
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.connectors.http import segment
from runbook.result import Precondition

if TYPE_CHECKING:
    from runbook.settings import Settings

MINUTES, MAX_MINUTES = 60, 120
"""How long a silence lasts, and at most."""
_TOLERANCE = timedelta(seconds=2)


class Silence(Kind):
    """``alertmanager.silence``: no notification of one alert for a while."""

    may_be_automatic = False

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        wanted = only_target(order)
        labels, minutes = _labels(wanted.get("labels")), wanted.get("minutes", MINUTES)
        if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes <= MAX_MINUTES:
            raise Refused(f"{minutes} minutes are not between 0 and {MAX_MINUTES}")
        there = _Alertmanager(self.settings)
        alert, why = there.only(labels)
        if alert is None:
            raise Refused(why)
        if alert.silenced_by:
            raise Refused(f"nothing is left to do: it is silenced already, by {alert.silenced_by}")
        name = f"{labels['alertname']}/{alert.fingerprint[:8]}"
        comment = str(wanted.get("comment") or order.title)
        target = Target(
            name=name,
            identity={"fingerprint": alert.fingerprint, "starts_at": alert.starts_at, "labels": labels},
            shown=f"{name} fires since {alert.starts_at}: " + ", ".join(f"{k}={v}" for k, v in labels.items()),
            change=f"nobody is notified of it for {minutes:g} minutes: {comment}",
            after={"minutes": minutes, "comment": f"{comment} [{order.id}]"},
        )
        return Draft(
            targets=[target],
            preconditions=(
                Precondition(label="the alert fires, and nothing silences it", holds=True, value=alert.starts_at),
                Precondition(label="no other alert has these labels and more", holds=True),
                Precondition(label=f"it ends by itself within {MAX_MINUTES} minutes", holds=True,
                             value=f"{minutes:g} minutes"),
            ),
            risks=("nobody hears of it while it gets worse",
                   "an alert that begins later with the same labels and more is silenced as well"),
            undo="the silence is expired, unless somebody has changed it since",
        )  # fmt: skip

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        (target,) = plan.draft.targets
        there, labels = _Alertmanager(self.settings), dict(target.identity["labels"])
        alert, why = there.only(labels)
        if alert is None:
            return [left_alone(target.name, why)]
        if (alert.fingerprint, alert.starts_at) != (target.identity["fingerprint"], target.identity["starts_at"]):
            return [left_alone(target.name, f"it fires anew since {alert.starts_at}")]
        if alert.silenced_by:
            return [left_alone(target.name, "it is silenced by now")]
        now = datetime.now(UTC)
        until = now + timedelta(minutes=target.after["minutes"])
        body = {
            "matchers": _matchers(labels), "startsAt": now.isoformat(), "endsAt": until.isoformat(),
            "createdBy": f"runbook for {plan.planner}", "comment": target.after["comment"],
        }  # fmt: skip
        said = f"it is silenced until {until:%H:%M:%S} UTC"
        return [tried(target.name, said, lambda: there.silence(body))]

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        (target,) = plan.draft.targets
        ours = _Alertmanager(self.settings).ours(target, made_by(effects, target.name))
        if ours is None:
            return False, "there is no silence of it"
        return ours.state == "active", f"silence {ours.id} is {ours.state} until {ours.ends_at}"

    def undo(self, plan: Plan, effects: Sequence[Effect]) -> list[Effect]:
        """See :meth:`Kind.undo`."""
        (target,) = plan.draft.targets
        there = _Alertmanager(self.settings)
        ours = there.ours(target, made_by(effects, target.name))
        if ours is None or ours.state == "expired":
            return [left_alone(target.name, "there is no silence of it any more")]
        lasts = ours.ends_at - ours.starts_at
        if abs(lasts - timedelta(minutes=target.after["minutes"])) > _TOLERANCE:
            return [left_alone(target.name, f"somebody has changed its end to {ours.ends_at}")]
        return [tried(target.name, f"silence {ours.id} is expired", lambda: there.expire(ours.id))]


@dataclass(frozen=True, kw_only=True)
class _Alert:
    """One alert that fires."""

    fingerprint: str
    starts_at: str
    #: Id of a silence of it; empty = none.
    silenced_by: str


@dataclass(frozen=True, kw_only=True)
class _Made:
    """One silence."""

    id: str
    state: str
    starts_at: datetime
    ends_at: datetime


class _Alertmanager:
    """One Alertmanager, version 2 of its API."""

    def __init__(self, settings: Settings) -> None:
        url = settings.alertmanager.url
        self._api = ActingApi("Alertmanager", f"{url.rstrip('/')}/api/v2", secrets=[url] if "@" in url else (),
                              lacking="" if url else "alertmanager.url")  # fmt: skip

    def only(self, labels: Mapping[str, str]) -> tuple[_Alert | None, str]:
        """The alert with exactly these labels; ``None`` and why, where it does not fire or others are meant as well."""
        filters = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
        found = self._api.look_rows("/alerts", {"filter": filters})
        exact = next((one for one in found if one.get("labels") == dict(labels)), None)
        if exact is None:
            return None, "no alert with exactly these labels fires"
        if len(found) > 1:
            return None, f"{len(found) - 1} other alerts have these labels and more, and would be silenced as well"
        silenced = (exact.get("status") or {}).get("silencedBy") or [""]
        fingerprint, starts_at = str(exact.get("fingerprint")), str(exact.get("startsAt"))
        return _Alert(fingerprint=fingerprint, starts_at=starts_at, silenced_by=str(silenced[0])), ""

    def ours(self, target: Target, made: str) -> _Made | None:
        """The silence that was made for a target, by its id, else by what it says."""
        wanted = _plain(_matchers(target.identity["labels"]))
        mine = [one for one in self._api.look_rows("/silences") if one.get("comment") == target.after["comment"]
                and _plain(one.get("matchers") or ()) == wanted and made in ("", one.get("id"))]  # fmt: skip
        newest = max(mine, key=lambda one: str(one.get("updatedAt")), default=None)
        if newest is None:
            return None
        return _Made(
            id=str(newest.get("id")),
            state=str((newest.get("status") or {}).get("state")),
            starts_at=instant(newest.get("startsAt")),
            ends_at=instant(newest.get("endsAt")),
        )

    def silence(self, body: Mapping[str, Any]) -> str:
        """Make a silence; its id."""
        said = self._api.send("POST", "/silences", body)
        return str(said.get("silenceID") or "") if isinstance(said, dict) else ""

    def expire(self, number: str) -> None:
        """End a silence."""
        self._api.send("DELETE", f"/silence/{segment(number)}")


def _labels(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not value.get("alertname"):
        raise Refused("it does not say which alert: labels with an alertname are needed")
    return {str(name): str(text) for name, text in sorted(value.items()) if str(text)}


def _matchers(labels: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in labels.items()]


def _plain(matchers: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
    return {(one.get("name"), one.get("value"), one.get("isRegex"), one.get("isEqual", True)) for one in matchers}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

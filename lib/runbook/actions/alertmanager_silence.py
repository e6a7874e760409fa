"""A silence for one alert in Alertmanager: exactly its labels, with an end, and expired again when it is undone.

A silence of an alert's labels also silences alerts that have these labels and more: where there is one now, nothing is
done. Never by a policy: who silences, knows. Source: contracts, section 8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from runbook.actions.attempts import instant, left_alone, made_by, only_target, tried
from runbook.actions.http_acting import ActingApi
from runbook.actions.kinds import Kind, Said
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.connectors.http import segment
from runbook.errors import InvalidParameter
from runbook.redaction import REDACTED, WITHHELD, kept_labels
from runbook.result import Precondition

if TYPE_CHECKING:
    from runbook.settings import Settings

MINUTES, MAX_MINUTES = 60, 120
"""How long a silence lasts, and at most."""
_TOLERANCE = timedelta(seconds=2)


class Silence(Kind):
    """``alertmanager.silence``: no notification of one alert for a while."""

    may_be_automatic = False
    may_be_ordered = True
    called = "Silence the alert"
    said: ClassVar[Mapping[str, Said]] = {
        "labels": Said(means="all labels of the alert, its alertname among them", form="labels"),
        "fingerprint": Said(means="the alert's fingerprint, as Alertmanager tells it; then not all labels are needed"),
        "minutes": Said(means=f"how long, {MAX_MINUTES} at most", form="number"),
        "comment": Said(means="why, for whoever finds the silence"),
    }

    def completed(self, given: Mapping[str, Any], result: Mapping[str, Any]) -> Mapping[str, Any]:
        """See :meth:`Kind.completed`. Without a name, the alert that started the run is meant."""
        if "labels" in given or "fingerprint" in given:
            return {"minutes": MINUTES, **given}
        alert = result.get("alert") or {}
        labels = alert.get("labels") or {}
        if labels.get("alertname") and not any(WITHHELD in text or REDACTED in text for text in labels.values()):
            return {"labels": labels, "minutes": MINUTES, **given}
        # Some of its labels are not kept: what Alertmanager made of all of them is.
        if alert.get("source") == "alertmanager" and alert.get("fingerprint"):
            shown = {name: text for name, text in labels.items() if WITHHELD not in text and REDACTED not in text}
            return {"fingerprint": alert["fingerprint"], "labels": shown, "minutes": MINUTES, **given}
        raise InvalidParameter("it is not known which alert started the run", remedy="Say labels.alertname=… and so on")

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        wanted = only_target(order)
        minutes = wanted.get("minutes", MINUTES)
        if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes <= MAX_MINUTES:
            raise Refused(f"{minutes} minutes are not between 0 and {MAX_MINUTES}")
        there = _Alertmanager(self.settings)
        fingerprint = str(wanted.get("fingerprint") or "")
        named = wanted.get("labels")
        alert, why = there.only(named or {} if fingerprint else _labels(named), fingerprint)
        if alert is None:
            raise Refused(why)
        if alert.silenced_by:
            raise Refused(f"nothing is left to do: it is silenced already, by {alert.silenced_by}")
        # Whoever says labels may see them; of an alert that is named otherwise some may hold anything.
        labels = kept_labels(alert.labels) if fingerprint else alert.labels
        name = f"{labels.get('alertname')}/{alert.fingerprint[:8]}"
        comment = str(wanted.get("comment") or order.title)
        target = Target(
            name=name,
            identity={
                "fingerprint": alert.fingerprint,
                "starts_at": alert.starts_at,
                "labels": labels,
                "matchers": _mark(_matchers(alert.labels)),
            },
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
        there = _Alertmanager(self.settings)
        alert, why = there.only(target.identity["labels"], target.identity["fingerprint"])
        if alert is None:
            return [left_alone(target.name, why)]
        if alert.starts_at != target.identity["starts_at"]:
            return [left_alone(target.name, f"it fires anew since {alert.starts_at}")]
        if alert.silenced_by:
            return [left_alone(target.name, "it is silenced by now")]
        now = datetime.now(UTC)
        until = now + timedelta(minutes=target.after["minutes"])
        body = {
            "matchers": _matchers(alert.labels), "startsAt": now.isoformat(), "endsAt": until.isoformat(),
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
    #: All of them, also those that are shown nowhere.
    labels: Mapping[str, str]
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

    def only(self, labels: Mapping[str, str], fingerprint: str = "") -> tuple[_Alert | None, str]:
        """The alert with this fingerprint among those with these labels, else the one with exactly these.

        ``None`` and why, where it does not fire, or others would be meant as well.
        """
        filters = [f'{name}="{_escaped(text)}"' for name, text in labels.items() if text != WITHHELD]
        rows = self._api.look_rows("/alerts", {"filter": filters})
        key, wanted = ("fingerprint", fingerprint) if fingerprint else ("labels", dict(labels))
        exact = next((one for one in rows if one.get(key) == wanted), None)
        if exact is None:
            return None, f"no alert with exactly {'this fingerprint' if fingerprint else 'these labels'} fires"
        its = {str(name): str(text) for name, text in sorted((exact.get("labels") or {}).items())}
        others = sum(its.items() <= (one.get("labels") or {}).items() for one in rows) - 1
        if others:
            return None, f"{others} other alerts have these labels and more, and would be silenced as well"
        silenced = (exact.get("status") or {}).get("silencedBy") or [""]
        return _Alert(fingerprint=str(exact.get("fingerprint")), starts_at=str(exact.get("startsAt")), labels=its,
                      silenced_by=str(silenced[0])), ""  # fmt: skip

    def ours(self, target: Target, made: str) -> _Made | None:
        """The silence that was made for a target, by its id, else by what it says."""
        said = (target.after["comment"], target.identity["matchers"])
        mine = [
            one
            for one in self._api.look_rows("/silences")
            if (one.get("comment"), _mark(one.get("matchers") or ())) == said and made in ("", one.get("id"))
        ]
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


def _mark(matchers: Sequence[Mapping[str, Any]]) -> str:
    """Tells matchers from others without showing them."""
    plain = sorted(str((m.get("name"), m.get("value"), m.get("isRegex"), m.get("isEqual", True))) for m in matchers)
    return hashlib.sha256("\n".join(plain).encode()).hexdigest()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

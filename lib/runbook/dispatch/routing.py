"""Which runbook answers an alert, and with which parameters. Pure functions over the catalog and the settings.

An alert chooses among the runbooks that exist and fills the parameters that a notebook's author mapped to labels;
it can do nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from runbook.catalog import Runbook, check_parameters, parse_text
from runbook.dispatch.alert import Alert, iso
from runbook.errors import ConfigurationError, InvalidParameter
from runbook.redaction import Redactor
from runbook.settings import Route, Settings

URL_KEYS = ("runbook_url", "runbookUrl")
START_PARAMETER = "alert_at"
"""A parameter of this name receives the alert's start, ISO 8601: the anchor of the run's time window."""


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """Parameters taken from an alert, and what was not taken and why."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def route(alert: Alert, runbooks: Mapping[str, Runbook], routes: Sequence[Route]) -> Runbook | None:
    """The runbook for an alert: the one its URL names, else one that lists it, else the first route that matches."""
    return _by_url(alert, runbooks) or _by_name(alert, runbooks.values()) or _by_route(alert, runbooks, routes)


def _by_url(alert: Alert, runbooks: Mapping[str, Runbook]) -> Runbook | None:
    for where in (alert.annotations, alert.labels):
        for key in URL_KEYS:
            named = runbooks.get(_last_segment(where.get(key, "")))
            if named is not None:
                return named
    return None


def _last_segment(url: str) -> str:
    """``name`` of a URL whose path ends in ``/runbooks/name``; empty otherwise."""
    try:
        path = urlsplit(url.strip()).path
    except ValueError:
        return ""
    parent, _, name = path.rstrip("/").rpartition("/")
    return name if parent.rpartition("/")[2] == "runbooks" else ""


def _by_name(alert: Alert, runbooks: Iterable[Runbook]) -> Runbook | None:
    """The first runbook, by name, that lists the alert."""
    answering = [r for r in runbooks if any(_listed(entry, alert) for entry in r.alerts)]
    return min(answering, key=lambda r: r.name, default=None)


def _listed(entry: str, alert: Alert) -> bool:
    """An entry is an alert's name, or ``label=value`` pairs that all hold."""
    if "=" not in entry:
        return entry == alert.name
    pairs = [pair.partition("=") for pair in entry.split(",")]
    return all(alert.labels.get(label.strip()) == value.strip() for label, _, value in pairs)


def _by_route(alert: Alert, runbooks: Mapping[str, Runbook], routes: Sequence[Route]) -> Runbook | None:
    for rule in routes:
        if all(alert.labels.get(label) == value for label, value in rule.match.items()):
            return runbooks.get(rule.runbook)
    return None


def check_routes(runbooks: Mapping[str, Runbook], routes: Sequence[Route]) -> None:
    """Raise :class:`ConfigurationError` when a route names a runbook that does not exist."""
    for rule in routes:
        if rule.runbook not in runbooks:
            raise ConfigurationError(
                f"settings routes names an unknown runbook {rule.runbook!r}",
                remedy=f"Known: {', '.join(runbooks) or '(no notebooks found)'}",
            )


def labels_asked_for(runbook: Runbook | None, routes: Sequence[Route]) -> set[str]:
    """Labels that somebody on our side named, so that their values are wanted."""
    mapped = set(runbook.parameters_from_alert.values()) if runbook else set()
    return mapped.union(*(rule.match for rule in routes))


def parameters(alert: Alert, runbook: Runbook, settings: Settings, redactor: Redactor | None = None) -> Mapped:
    """The run's parameters: mapped labels where they fit, defaults where they do not, and notes on the latter.

    A label in which a secret stands does not fit: without the secret it would name something else, of which a verdict
    would speak as if it had been asked for.
    """
    clean = redactor or Redactor()
    given: dict[str, Any] = {}
    notes: list[str] = []
    for name, label in runbook.parameters_from_alert.items():
        text = alert.labels.get(label)
        if text is None:
            continue
        parameter = runbook.parameters[name]
        if clean.text(text) != text:
            notes.append(f"label {label} holds a secret, and is not taken as parameter {name}: default used")
            continue
        try:
            given[name] = parse_text(parameter, text)
        except ValueError:
            notes.append(f"label {label} does not fit parameter {name} ({parameter.allowed()}): default used")
    try:
        return Mapped(parameters=check_parameters(runbook, given, settings), notes=notes)
    except InvalidParameter as error:
        # The thresholds in the settings are wrong: that is no reason to lose an alert. The run will say so.
        return Mapped(parameters=given, notes=[*notes, str(error)])


def anchored(values: Mapping[str, Any], runbook: Runbook, starts_at: Any) -> dict[str, Any]:
    """The parameters with the alert's start in them, where the runbook declares one for it."""
    return dict(values) | ({START_PARAMETER: iso(starts_at)} if START_PARAMETER in runbook.parameters else {})

"""One module for each system that sends alerts; each turns a body into alerts, or says why it is none.

``parse(source, body)`` is the only way in. No body whatever may raise anything but
:class:`~runbook.dispatch.alert.MalformedAlert`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runbook.dispatch.alert import Alert
from runbook.dispatch.sources import alertmanager, generic
from runbook.dispatch.sources.body import load

SOURCES: Mapping[str, Callable[[Mapping[str, Any]], list[Alert]]] = {
    "alertmanager": alertmanager.alerts,
    "generic": generic.alerts,
}
"""Source → what turns its JSON object into alerts."""


def parse(source: str, body: bytes) -> Sequence[Alert]:
    """The alerts in a body.

    Raises
    ------
    MalformedAlert
        The body is not what ``source`` sends.
    """
    return SOURCES[source](load(body))

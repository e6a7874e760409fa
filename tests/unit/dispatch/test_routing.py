from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runbook import settings as settings_module
from runbook.catalog import Parameter, Runbook
from runbook.dispatch.alert import Alert
from runbook.dispatch.incidents import prepare
from runbook.dispatch.routing import anchored, check_routes, parameters, route
from runbook.errors import ConfigurationError
from runbook.redaction import Redactor
from runbook.settings import Route


def runbook(name: str, *alerts: str, **facts: Any) -> Runbook:
    given = {"parameters": {}, "parameters_from_alert": {}} | facts
    return Runbook(
        name=name, path=Path(name), title=name, severity="critical", alerts=alerts, diagnosis="m:f", causes=(), **given
    )


def alert(name: str = "A", *, annotations: dict[str, str] | None = None, **labels: str) -> Alert:
    return Alert(
        source="generic",
        name=name,
        status="firing",
        fingerprint="f",
        starts_at=datetime(2026, 11, 23, 7, 25, tzinfo=UTC),
        labels={"alertname": name, **labels},
        annotations=annotations or {},
        raw={"labels": labels},
    )


RUNBOOKS = {
    r.name: r
    for r in (
        runbook("db", "DbFull", "Both"),
        runbook("queue", "QueueStuck", "Both"),
        runbook("uploads", "component=uploads,tier=web"),
        runbook("caught"),
    )
}
ROUTES = [
    Route(match={"team": "storage", "severity": "page"}, runbook="db"),
    Route(match={"team": "storage"}, runbook="queue"),
    Route(match={"catch": "all"}, runbook="caught"),
]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        # The URL that the alert carries comes first,
        (alert("DbFull", annotations={"runbook_url": "https://x.example/runbooks/queue"}), "queue"),
        (alert("DbFull", annotations={"runbookUrl": "https://x.example/runbooks/queue/"}), "queue"),
        (alert("DbFull", annotations={"runbook_url": "http://h:8340/runbooks/queue?a=b#c"}), "queue"),
        (alert("DbFull", runbook_url="https://x.example/deep/runbooks/queue"), "queue"),
        # when it names a runbook of ours,
        (alert("DbFull", annotations={"runbook_url": "https://x.example/runbooks/nonesuch"}), "db"),
        (alert("DbFull", annotations={"runbook_url": "https://x.example/wiki/queue"}), "db"),
        (alert("DbFull", annotations={"runbook_url": "https://x.example/?p=/runbooks/queue"}), "db"),
        (alert("DbFull", annotations={"runbook_url": "https://[broken/runbooks/queue"}), "db"),
        (alert("DbFull", annotations={"runbook_url": "/runbooks/../runbooks/queue"}), "queue"),
        (alert("DbFull", annotations={"runbook_url": "queue"}), "db"),
        # then the notebooks that list it, by name,
        (alert("QueueStuck"), "queue"),
        (alert("Both"), "db"),
        (alert("Other", component="uploads", tier="web"), "uploads"),
        (alert("Other", component="uploads", tier="batch"), None),
        (alert("dbfull"), None),
        (alert("DbFull", team="storage"), "db"),
        # then the routes of the settings, in their order,
        (alert("Other", team="storage", severity="page"), "db"),
        (alert("Other", team="storage", severity="info"), "queue"),
        (alert("Other", catch="all"), "caught"),
        # and then nobody.
        (alert("Other"), None),
    ],
)
def test_routing_order(told: Alert, expected: str | None) -> None:
    found = route(told, RUNBOOKS, ROUTES)
    assert (found.name if found else None) == expected


def test_a_route_to_an_unknown_runbook_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="'gone'"):
        check_routes(RUNBOOKS, [Route(match={}, runbook="gone")])


TYPED = runbook(
    "typed",
    parameters={
        p.name: p
        for p in (
            Parameter(name="service", type="str", default="", pattern="[a-z0-9-]*"),
            Parameter(name="window_minutes", type="int", default=30, minimum=1, maximum=1440),
            Parameter(name="share", type="float", default=0.5, minimum=0, maximum=1),
            Parameter(name="deep", type="bool", default=False),
            Parameter(name="hosts", type="list[str]", default=[]),
            Parameter(name="unmapped", type="str", default="kept"),
        )
    },
    parameters_from_alert={p: p for p in ("service", "window_minutes", "share", "deep", "hosts")},
)


@pytest.mark.parametrize(
    ("label", "text", "taken"),
    [
        ("service", "api", "api"),
        ("service", "api; DROP TABLE x", None),
        ("service", "$(reboot)", None),
        ("service", "a\x00b", None),
        ("window_minutes", "60", 60),
        ("window_minutes", "0", None),
        ("window_minutes", "99999", None),
        ("window_minutes", "1e2", None),
        ("window_minutes", "sixty", None),
        ("share", "0.25", 0.25),
        ("share", "nan", None),
        ("share", "inf", None),
        ("share", "2", None),
        ("deep", "true", True),
        ("deep", "maybe", None),
        ("hosts", '["a","b"]', ["a", "b"]),
        ("hosts", "a,b", None),
        ("hosts", "[" * 10_000, None),
        ("unmapped", "taken over", None),
        ("__import__", "os", None),
    ],
)
def test_a_label_becomes_a_parameter_only_where_it_is_mapped_and_fits(label: str, text: str, taken: Any) -> None:
    mapped = parameters(alert(**{label: text}), TYPED, settings_module.from_plain({}))
    defaults = {name: p.default for name, p in TYPED.parameters.items()}
    assert mapped.parameters == defaults | ({label: taken} if taken is not None else {})
    refused = taken is None and label in TYPED.parameters_from_alert
    assert len(mapped.notes) == int(refused)
    assert not refused or text not in mapped.notes[0] or len(text) < 3


def test_thresholds_that_do_not_fit_do_not_lose_the_alert() -> None:
    wrong = settings_module.from_plain({"thresholds": {"typed": {"window_minutes": "many"}}})
    mapped = parameters(alert(service="api"), TYPED, wrong)
    assert mapped.parameters == {"service": "api"}
    assert "window_minutes" in mapped.notes[0]


def test_the_start_is_given_only_to_a_runbook_that_asks_for_it() -> None:
    asking = runbook("asking", parameters={"alert_at": Parameter(name="alert_at", type="str", default="")})
    start = datetime(2026, 11, 23, 7, 25, 13, tzinfo=UTC)
    assert anchored({"alert_at": ""}, asking, start) == {"alert_at": "2026-11-23T07:25:13Z"}
    assert anchored({}, TYPED, start) == {}


def test_labels_that_nobody_asked_for_are_withheld_and_their_secrets_with_them() -> None:
    settings = settings_module.from_plain({"routes": [{"match": {"team": "storage"}, "runbook": "db"}]})
    told = alert("DbFull", annotations={"summary": "key is s3cr3tvalue99"}, weird="s3cr3tvalue99", team="storage")
    arrival = prepare(told, RUNBOOKS, settings, Redactor())
    assert arrival.runbook is RUNBOOKS["db"]
    assert arrival.alert.labels["team"] == "storage"
    assert "s3cr3tvalue99" not in str(arrival)


def test_a_configured_secret_is_out_of_everything_that_is_kept() -> None:
    settings = settings_module.from_plain({"postgres": {"dsn": "postgresql://mon:c4naryc4nary@db/x"}})
    told = alert(
        "DbFull", annotations={"c4naryc4nary": "x c4naryc4nary y"}, instance="c4naryc4nary", service="c4naryc4nary"
    )
    arrival = prepare(told, {"typed": TYPED}, settings, Redactor(settings.secrets()))
    assert "c4naryc4nary" not in str(arrival)


def test_a_label_with_a_secret_in_it_is_no_parameter_not_even_without_the_secret() -> None:
    """``/srv/[redacted]/media`` is another place than the one that is full, and it may well have room."""
    settings = settings_module.from_plain({"postgres": {"dsn": "postgresql://mon:gallery@db/x"}})
    parameter = Parameter(name="mount", type="str", default="")
    mount = runbook("mount", "DiskFull", parameters={"mount": parameter}, parameters_from_alert={"mount": "mountpoint"})
    told = alert("DiskFull", mountpoint="/srv/gallery/media")
    arrival = prepare(told, {"mount": mount}, settings, Redactor(settings.secrets()))
    assert arrival.mapped.parameters == {"mount": ""}
    assert arrival.mapped.notes == [
        "label mountpoint holds a secret, and is not taken as parameter mount: default used"
    ]
    assert "gallery" not in str(arrival)


def test_an_alert_of_a_service_gets_that_services_thresholds() -> None:
    configured = settings_module.from_plain(
        {
            "thresholds": {"typed": {"window_minutes": 20}},
            "services": {"billing": {"thresholds": {"typed": {"window_minutes": 45}}}},
        }
    )
    assert parameters(alert(service="billing"), TYPED, configured).parameters["window_minutes"] == 45
    assert parameters(alert(service="api"), TYPED, configured).parameters["window_minutes"] == 20

"""Settings: where they come from, which of them wins, what may be seen of them."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runbook import settings
from runbook.errors import ConfigurationError

SECRET = "postgresql://web:canary-0a1b2c3d@db/app"
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the settings file that is in force."""
    for name in [name for name in os.environ if name.startswith("RUNBOOK_") and "__" in name]:
        monkeypatch.delenv(name)
    path = tmp_path / "runbook.toml"
    monkeypatch.setenv("RUNBOOK_CONFIG", str(path))

    def put(text: str) -> Path:
        path.write_text(text)
        return path

    put("")
    return put


def dsn(found: settings.Settings) -> str | None:
    secret = found.postgres.dsn
    return secret.get_secret_value() if secret else None


def test_a_key_of_the_file_is_taken(write: Write) -> None:
    write(f'[postgres]\ndsn = "{SECRET}"\n')
    assert dsn(settings.load()) == SECRET


def test_the_environment_stands_above_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[postgres]\ndsn = "postgresql://file/x"\nreserve_dsn = "postgresql://reserve/x"\n')
    monkeypatch.setenv("RUNBOOK_POSTGRES__DSN", "postgresql://environment/x")
    found = settings.load()
    assert dsn(found) == "postgresql://environment/x"
    assert found.postgres.reserve_dsn is not None


def test_lists_and_maps_are_json_in_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_APP__LOG_PATHS", '["/var/log/app.log"]')
    monkeypatch.setenv("RUNBOOK_ROUTES", '[{"match": {"team": "db"}, "runbook": "r"}]')
    found = settings.load()
    assert found.app.log_paths == ["/var/log/app.log"]
    assert found.routes[0].match == {"team": "db"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f'[postgres]\ndsm = "{SECRET}"\n', "postgres.dsm"),
        (f'[postgress]\ndsn = "{SECRET}"\n', "postgress"),
        (f'[server]\nport = "{SECRET}"\n', "server.port"),
        (f'[[server.tokens]]\nname = "a"\nsha256 = "{SECRET}"\n', "server.tokens.0.sha256"),
        (f'[s3]\nflavour = "{SECRET}"\n', "s3.flavour"),
        (f'[services.billing.postgres]\ndsm = "{SECRET}"\n', "services.billing"),
        (f'[postgres]\ndsn = "{SECRET}', "runbook.toml"),
        (f'[postgres]\ndsn = ["{SECRET}"]\n', "postgres.dsn"),
    ],
)
def test_a_wrong_key_or_value_is_named_and_the_value_never_shown(write: Write, text: str, named: str) -> None:
    write(text)
    with pytest.raises(ConfigurationError) as refused:
        settings.load()
    assert named in str(refused.value)
    assert "canary" not in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RUNBOOK_POSTGRESS__DSN", SECRET),
        ("RUNBOOK_POSTGRES__DSM", SECRET),
        ("RUNBOOK_SERVER__TOKENS", "canary-not-json"),
        ("RUNBOOK_ROUTES", "canary-not-json"),
    ],
)
def test_a_wrong_variable_is_refused_without_its_value(
    write: Write, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as refused:
        settings.load()
    assert "canary" not in str(refused.value)


def test_variables_that_are_no_settings_are_left_alone(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_TEST_REQUIRE", "all")
    monkeypatch.setenv("RUNBOOK_DATA_DIR", "/nowhere")
    assert settings.load().postgres.dsn is None


def test_a_secret_is_read_from_the_file_that_it_names(write: Write, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(SECRET + "\n")
    write(f'[postgres]\ndsn = "file:{tmp_path}/dsn"\n')
    found = settings.load()
    assert dsn(found) == SECRET
    assert found.secrets() == [SECRET]


def test_a_secret_file_that_is_not_there_is_named(write: Write, tmp_path: Path) -> None:
    write(f'[postgres]\ndsn = "file:{tmp_path}/absent"\n')
    with pytest.raises(ConfigurationError, match=r"postgres\.dsn.*absent cannot be read"):
        settings.load()


def test_a_settings_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNBOOK_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigurationError, match=r"absent\.toml does not exist.*RUNBOOK_CONFIG"):
        settings.load()


def test_the_nearest_file_upwards_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RUNBOOK_CONFIG", raising=False)
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "runbook.toml").write_text("")
    (tmp_path / "a" / "runbook.toml").write_text("")
    assert settings.find_config(deep) == tmp_path / "a" / "runbook.toml"


EVERY_SECRET = {
    "store": {"url": "postgresql://store/sesame-store"},
    "postgres": {
        "dsn": "sesame-dsn-1",
        "action_dsn": "sesame-action",
        "pgbouncer_dsn": "sesame-pgbouncer",
        "reserve_dsn": "sesame-reserve",
    },
    "redis": {"url": "sesame-redis"},
    "s3": {"secret_access_key": "sesame-s3"},
    "sentry": {"token": "sesame-sentry"},
    "github": {"token": "sesame-github"},
    "mux": {"token_secret": "sesame-mux"},
    "cloudflare": {"token": "sesame-cloudflare"},
    "discord": {"webhook_url": "sesame-discord"},
    "pagerduty": {"routing_key": "sesame-routing", "token": "sesame-pagerduty"},
}


def test_secrets_are_complete_and_in_no_repr() -> None:
    found = settings.from_plain(EVERY_SECRET)
    clear = [value for section in EVERY_SECRET.values() for value in section.values()]
    assert sorted(found.secrets()) == sorted(clear)
    assert "sesame" not in repr(found)
    assert "sesame" not in found.model_dump_json()


def test_a_kernel_is_given_nothing_that_acts_stores_or_announces() -> None:
    held = json.dumps(settings.from_plain(EVERY_SECRET).diagnosing())
    for kept in ("sesame-dsn-1", "sesame-reserve", "sesame-pgbouncer"):
        assert kept in held
    for kept_back in ("sesame-action", "sesame-store", "sesame-discord", "sesame-routing", "sesame-pagerduty"):
        assert kept_back not in held


def test_a_service_is_given_its_own_sections_over_the_common_ones(write: Write) -> None:
    write(
        """
        [postgres]
        dsn = "postgresql://common/x"
        reserve_dsn = "postgresql://reserve/x"
        [thresholds.r]
        a = 1
        b = 2
        [thresholds.other]
        c = 3
        [services.billing.postgres]
        dsn = "postgresql://billing/x"
        [services.billing.thresholds.r]
        b = 20
        """
    )
    found = settings.load()
    billing = found.for_service("billing")
    assert dsn(billing) == "postgresql://billing/x"
    assert billing.postgres.reserve_dsn is not None
    assert billing.thresholds == {"r": {"a": 1, "b": 20}, "other": {"c": 3}}
    assert dsn(found) == "postgresql://common/x"
    assert found.for_service("unheard-of") is found
    assert found.for_service("") is found


def test_the_environment_does_not_override_what_a_service_says_for_itself(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write('[services.billing.postgres]\ndsn = "postgresql://billing/x"\n')
    monkeypatch.setenv("RUNBOOK_POSTGRES__DSN", "postgresql://environment/x")
    assert dsn(settings.load().for_service("billing")) == "postgresql://billing/x"


def test_a_lease_is_taken_as_it_is_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_POSTGRES__DSN", "postgresql://environment/x")
    monkeypatch.setenv("RUNBOOK_POSTGRES__ACTION_DSN", "postgresql://environment/acting")
    found = settings.from_plain({"postgres": {"dsn": "postgresql://lease/x"}})
    assert dsn(found) == "postgresql://lease/x"
    assert found.postgres.action_dsn is None


def test_secrets_of_services_are_known_wherever_they_are_kept(write: Write, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://x:canary-in-a-file@h/d")
    write(
        f"""
        [services.billing.postgres]
        dsn = "file:{tmp_path}/dsn"
        [services.billing.github]
        token = "canary-github"
        """
    )
    assert set(settings.load().secrets()) == {"postgresql://x:canary-in-a-file@h/d", "canary-github"}


@pytest.mark.parametrize("value", [None, "", {"postgres": {"dsn": ""}}])
def test_what_is_empty_is_not_configured(value: Any) -> None:
    assert settings.from_plain(value or {}).postgres.dsn is None


def test_the_example_with_every_comment_taken_up_is_valid_and_names_every_section() -> None:
    example = (Path(__file__).resolve().parents[2] / "runbook.example.toml").read_text(encoding="utf-8")
    taken_up = re.sub(r"(?m)^# (?=\[|[a-z0-9_]+ = )", "", example)
    values = tomllib.loads(re.sub(r'"file:/[^"]*"', '"x"', taken_up).replace('"…"', f'"{"0" * 64}"'))
    settings.from_plain(values)
    assert set(settings.Settings.model_fields) - set(values) <= {"pagerduty", "alertmanager"}

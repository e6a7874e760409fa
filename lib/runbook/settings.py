"""One Settings object: ``runbook.toml``, then the environment.

The file is the one named by ``RUNBOOK_CONFIG``, else the nearest ``runbook.toml`` upwards from the working directory.
Each key is also an environment variable ``RUNBOOK_<SECTION>__<KEY>`` (lists and maps are JSON there). Secrets are
``SecretStr``; a secret written ``file:/path`` is read from that file. A system that is not configured is *unknown* to
a diagnosis, never an error; a key that does not exist is one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    WithJsonSchema,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from runbook.errors import ConfigurationError

ENV_PREFIX = "RUNBOOK_"


def _secret_from_file(value: Any) -> Any:
    """``file:/path`` → the file's content without its trailing newline; anything else stays as it is."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str) or not text.startswith("file:/") or text.startswith("file://"):
        return value
    path = Path(text.removeprefix("file:"))
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"secret file {path} cannot be read: {error.strerror}") from None


def _not_blank(value: SecretStr | None) -> SecretStr | None:
    return value if value is not None and value.get_secret_value() else None


Secret = Annotated[
    SecretStr | None,
    BeforeValidator(_secret_from_file),
    AfterValidator(_not_blank),
    WithJsonSchema({"type": "string"}),
]


ACTING = (
    ("postgres", "action_dsn"),
    ("postgres", "pgbouncer_action_dsn"),
    ("redis", "action_url"),
    ("github", "action_token"),
)
"""Credentials that act, by section: no kernel is given them."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Store(_Section):
    """Where runs, incidents and the queue live; empty = the PostgreSQL that comes in the wheel."""

    url: Secret = None


class Archive(_Section):
    """``file:/path`` (or ``s3://bucket/prefix`` once that archive exists); empty = under the data directory."""

    url: str = ""


class Token(_Section):
    name: str
    role: Literal["alerts", "viewer", "operator", "admin"] = "alerts"
    #: Hex SHA-256 of the bearer token; the token itself is nowhere in the settings.
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$")


class Server(_Section):
    host: str = "127.0.0.1"
    port: int = Field(default=8340, ge=0, le=65535)
    #: How people reach the service: the base of links in messages.
    public_url: str = ""
    tokens: list[Token] = []


class Route(_Section):
    match: dict[str, str] = {}
    runbook: str


class Postgres(_Section):
    dsn: Secret = None
    action_dsn: Secret = None
    pgbouncer_dsn: Secret = None
    #: An administrator of PgBouncer's console; ``pgbouncer_dsn`` may only look.
    pgbouncer_action_dsn: Secret = None
    reserve_dsn: Secret = None


class Redis(_Section):
    url: Secret = None
    #: The login that acts, at the same server; no kernel is given it.
    action_url: Secret = None


class Queue(_Section):
    name: str = ""
    prefix: str = "bull"
    stuck_after_minutes: float = Field(default=10, gt=0)


class S3(_Section):
    endpoint_url: str = ""
    region: str = ""
    bucket: str = ""
    prefix: str = ""
    access_key_id: str = ""
    secret_access_key: Secret = None
    flavour: Literal["aws", "r2"] = "aws"
    canary: bool = False


class Sentry(_Section):
    base_url: str = "https://sentry.io"
    organization: str = ""
    project: str = ""
    environment: str = ""
    token: Secret = None


class GitHub(_Section):
    base_url: str = "https://api.github.com"
    repository: str = ""
    environment: str = ""
    token: Secret = None
    #: May start workflows; ``token`` only reads.
    action_token: Secret = None
    rollback_workflow: str = ""


class Mux(_Section):
    base_url: str = "https://api.mux.com"
    token_id: str = ""
    token_secret: Secret = None


class Cloudflare(_Section):
    base_url: str = "https://api.cloudflare.com/client/v4"
    account_id: str = ""
    token: Secret = None


class Discord(_Section):
    webhook_url: Secret = None
    mention: str = ""


class Jupyter(_Section):
    #: Where ``runbook jupyter`` listens, for whoever follows a link in a message or on a page; empty = no such links.
    url: str = "http://127.0.0.1:8341"


class PagerDuty(_Section):
    base_url: str = "https://api.pagerduty.com"
    routing_key: Secret = None
    token: Secret = None
    from_email: str = ""


class Endpoint(_Section):
    url: str = ""


class Traffic(_Section):
    access_log: str = ""
    format: str = ""
    upstream_hosts: list[str] = []
    fields: dict[str, str] = {}


class App(_Section):
    health_url: str = ""
    ready_url: str = ""
    live_url: str = ""
    metrics_url: str = ""
    public_url: str = ""
    instances: list[str] = []
    log_paths: list[str] = []


class Workers(_Section):
    hosts: list[str] = []
    tmp_paths: list[str] = []
    process_pattern: str = ""
    restart: list[str] = []


class Aws(_Section):
    endpoint_url: str = ""
    region: str = ""
    ecs_cluster: str = ""
    ecs_service: str = ""
    autoscaling_group: str = ""
    #: Of somebody who may only look; empty = the credential of this host. What acts never uses it.
    access_key_id: str = ""
    secret_access_key: Secret = None


class Permit(_Section):
    """What a headless run may do by itself; whatever is not permitted is only proposed."""

    kind: str
    runbook: str
    cause: str
    minimum_tier: Literal["confirmed", "probable"] = "confirmed"
    max_targets: int = Field(default=1, ge=1, le=10)


class Actions(_Section):
    #: The switch of everything that acts.
    enabled: bool = True
    policy: list[Permit] = []
    #: An approval, and the plan that it is bound to, hold so long.
    approval_minutes: float = Field(default=5, gt=0, le=60)
    #: No second action on the same target within this time.
    cooldown_minutes: float = Field(default=15, ge=0)
    #: Seals the log of actions; empty = a key of this machine. Machines that share a store share it.
    audit_key: Secret = None


class Settings(BaseSettings):
    """Everything that can be configured, by section."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    store: Store = Store()
    archive: Archive = Archive()
    server: Server = Server()
    routes: list[Route] = []
    #: ``thresholds.<runbook>.<parameter>``: defaults of a runbook's parameters, overridden here.
    thresholds: dict[str, dict[str, Any]] = {}
    #: ``services.<name>``: the same sections, overridden for one service.
    services: dict[str, dict[str, Any]] = {}
    postgres: Postgres = Postgres()
    redis: Redis = Redis()
    queue: Queue = Queue()
    s3: S3 = S3()
    sentry: Sentry = Sentry()
    github: GitHub = GitHub()
    mux: Mux = Mux()
    cloudflare: Cloudflare = Cloudflare()
    status_pages: dict[str, str] = {}
    discord: Discord = Discord()
    jupyter: Jupyter = Jupyter()
    pagerduty: PagerDuty = PagerDuty()
    prometheus: Endpoint = Endpoint()
    alertmanager: Endpoint = Endpoint()
    traffic: Traffic = Traffic()
    app: App = App()
    workers: Workers = Workers()
    aws: Aws = Aws()
    actions: Actions = Actions()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file is handed in as init values; the environment stands above it.
        return env_settings, init_settings

    def for_service(self, name: str) -> Settings:
        """These settings with the sections of ``services.<name>`` laid over them."""
        overrides = self.services.get(name)
        if not overrides:
            return self
        return _validated(_Plain.model_validate, _laid_over(self.revealed(), overrides), f"services.{name}")

    def revealed(self) -> dict[str, Any]:
        """Plain JSON values with the secrets in clear, for handing to a kernel; never for output."""
        revealed: dict[str, Any] = _reveal(self.model_dump(mode="python"))
        return revealed

    def diagnosing(self) -> dict[str, Any]:
        """What a kernel may hold: the diagnosing credentials, and nothing that acts, stores or announces.

        Secrets are in clear: hand it over a private channel only.
        """
        plain = self.revealed()
        for section in ("store", "archive", "server", "routes", "services", "discord", "pagerduty", "actions"):
            plain.pop(section, None)
        for section, name in ACTING:
            plain[section].pop(name, None)
        return plain

    def secrets(self) -> list[str]:
        """Every configured secret in clear, those of the services too, for the redactor."""
        found: list[str] = []
        for scope in (self, *map(self.for_service, self.services)):
            _collect_secrets(scope.model_dump(mode="python"), found)
        return list(dict.fromkeys(found))


class _Plain(Settings):
    """Settings that come from what is handed in and from nowhere else: the environment has been heard already."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def _laid_over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``, key by key at every depth; lists are replaced."""
    merged = dict(below)
    for key, value in above.items():
        current = merged.get(key)
        merged[key] = _laid_over(current, value) if isinstance(current, dict) and isinstance(value, dict) else value
    return merged


def _reveal(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {key: _reveal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_reveal(item) for item in value]
    return value


def _collect_secrets(value: Any, found: list[str]) -> None:
    if isinstance(value, SecretStr):
        found.append(value.get_secret_value())
    elif isinstance(value, dict):
        for item in value.values():
            _collect_secrets(item, found)
    elif isinstance(value, list):
        for item in value:
            _collect_secrets(item, found)


def find_config(start: Path | None = None) -> Path | None:
    """The settings file in force: ``RUNBOOK_CONFIG``, else the nearest ``runbook.toml`` upwards from ``start``.

    Raises
    ------
    ConfigurationError
        ``RUNBOOK_CONFIG`` names a file that does not exist.
    """
    named = os.environ.get("RUNBOOK_CONFIG")
    if named:
        path = Path(named)
        if not path.is_file():
            raise ConfigurationError(
                f"settings file {named} does not exist", remedy="Correct RUNBOOK_CONFIG or unset it"
            )
        return path
    here = (start or Path.cwd()).resolve()
    return next((f for d in (here, *here.parents) if (f := d / "runbook.toml").is_file()), None)


def load(path: Path | None = None) -> Settings:
    """The settings in force.

    Raises
    ------
    ConfigurationError
        The file is not TOML, or a key or value is not one of ours; names the key, never its value.
    """
    path = path or find_config()
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"settings file {path} cannot be read: {error}") from None
    _refuse_unknown_variables(os.environ)
    settings = _validated(lambda kept: Settings(**kept), values, str(path) if path else "environment")
    for name in settings.services:
        settings.for_service(name)  # what is wrong in a service is told now, not in the middle of its incident
    return settings


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    """A misspelt section in the environment would go unheard: pydantic looks only for the names that it knows."""
    sections = {name.upper() for name in Settings.model_fields}
    for name in environ:
        section, nested, _ = name.upper().removeprefix(ENV_PREFIX).partition("__")
        if name.upper().startswith(ENV_PREFIX) and nested and section not in sections:
            raise ConfigurationError(
                f"environment variable {name} names no section of the settings", remedy="See runbook.example.toml"
            )


def from_plain(values: Mapping[str, Any]) -> Settings:
    """Settings from plain values alone (a kernel's lease): neither file nor environment is read."""
    return _validated(_Plain.model_validate, dict(values), "lease")


def _validated(build: Any, values: dict[str, Any], where: str) -> Settings:
    from pydantic_settings import SettingsError

    try:
        settings: Settings = build(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'settings'}: {item['msg']}" for item in error.errors()
        )
        raise ConfigurationError(f"settings ({where}): {problems}", remedy="See runbook.example.toml") from None
    except SettingsError as error:
        raise ConfigurationError(
            f"settings ({where}): {error}", remedy="Lists and maps are JSON in the environment"
        ) from None
    return settings


def data_dir() -> Path:
    """Where state lives: ``RUNBOOK_DATA_DIR``, ``/var/lib/runbook`` for root, else the user's data directory."""
    named = os.environ.get("RUNBOOK_DATA_DIR")
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/runbook")
    import platformdirs

    return Path(platformdirs.user_data_dir("runbook"))

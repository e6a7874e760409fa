"""The sandbox as a whole: patient, vendors, application and what that needs, in one directory; up, down, and settings.

``up`` leaves the systems running after the process that called it, so that a second terminal finds them; ``down`` ends
them by the pids that it wrote down, recognises each before it signals it, and leaves neither process nor file.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import structlog

from runbook.embedded import EmbeddedPostgres
from runbook.errors import SandboxError
from runbook.sandbox import holder, patient, processes
from runbook.sandbox.stack import BUCKET, REGION, Stack
from runbook.settings import ENV_PREFIX, data_dir

if TYPE_CHECKING:
    import psycopg
    import redis

    from runbook.sandbox.application.stage import Control
    from runbook.sandbox.vendors.control import Vendors

log = structlog.get_logger(__name__)

VENDORS_MODULE = "runbook.sandbox.vendors"
System = Literal["database", "application"]
DATABASE: tuple[System, ...] = ("database",)
ALL: tuple[System, ...] = ("database", "application")
"""``database``: the patient and the vendors. ``application``: Redis, object storage, demo application and worker."""


class Sandbox:
    """A patient, the vendors' simulator, and, where asked for, an application with everything that it uses.

    Parameters
    ----------
    directory
        Where it lives; default: ``sandbox/<name>`` under the data directory. Two sandboxes in two directories do not
        know of each other.
    systems
        What ``up`` starts. What runs in the directory already goes on running.
    owned
        End the systems when the thread that started them ends, however it ends. For tests and drills.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        name: str = "default",
        systems: Collection[System] = ALL,
        owned: bool = False,
    ) -> None:
        self.directory = Path(directory) if directory is not None else data_dir() / "sandbox" / name
        self.app_log = self.directory / "app.log"
        self.access_log = self.directory / "access.log"
        self._systems = frozenset(systems)
        self._owned = owned
        self._server = EmbeddedPostgres(self.directory / "patient", settings=patient.SETTINGS, owned=owned)
        self._stack = Stack(self.directory, owned=owned)

    # -- life --------------------------------------------------------------------------------

    def up(self) -> Sandbox:
        """Start what does not run yet; returns when all of it answers."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = self._read_state()
        self.app_log.touch(mode=0o600)
        state["owner"] = os.getpid() if self._owned else None
        try:
            self._start(state)
            self._write_state(state)
        except BaseException:
            self._stack.end(state)
            processes.end(state.get("vendors", {}).get("pid"), VENDORS_MODULE)
            self._server.stop()
            raise
        self._server.leave()
        log.info("sandbox up", directory=str(self.directory))
        return self

    def down(self) -> None:
        """End every process of the sandbox and delete its directory; does nothing when there is none."""
        if not self.directory.is_dir():
            return
        if holder.injected(self.directory):
            holder.abandon(self.directory)
        state = self._read_state()
        self._stack.end(state)
        processes.end(state.get("vendors", {}).get("pid"), VENDORS_MODULE)
        self._server.remove()
        shutil.rmtree(self.directory)
        log.info("sandbox down", directory=str(self.directory))

    def __enter__(self) -> Sandbox:
        return self.up()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def status(self) -> dict[str, Any]:
        """What runs: ``{up, directory, patient: {pid, port}, vendors: {pid, url}, fault}``, and of an application
        ``redis``, ``storage``, ``application`` and ``worker``; ``None`` for what does not run.
        """
        state = self._read_state() if self.directory.is_dir() else {}
        pid = self._server.pid
        vendors = state.get("vendors", {}).get("pid")
        simulated = processes.is_running(vendors, VENDORS_MODULE)
        found: dict[str, Any] = {
            "patient": {"pid": pid, "port": self._server.port} if pid is not None else None,
            "vendors": {"pid": vendors, "url": _vendors_url(state)} if simulated else None,
        }
        if "application" in state:
            found |= self._stack.status(state)
        # A worker that is gone is a fault, and not the end of the sandbox.
        up = all(found[name] is not None for name in found if name != "worker")
        return {"up": up, "directory": str(self.directory), **found, "fault": holder.injected(self.directory)}

    # -- faults held by a process of their own ------------------------------------------------------------------------

    def inject(self, fault: str) -> None:
        """Inject a fault that stays after this process ended, until :meth:`heal`.

        Raises
        ------
        SandboxError
            The sandbox is not up, a fault is injected already, or this one is unknown or could not be injected.
        """
        if not self.status()["up"]:
            raise SandboxError("the sandbox is not up", remedy="Run: runbook sandbox up")
        holder.start(self.directory, fault)

    def heal(self) -> str | None:
        """Heal the fault injected by :meth:`inject`; returns its id, ``None`` when there was none.

        Raises
        ------
        SandboxError
            Something of it is left.
        """
        return holder.stop(self.directory)

    # -- how to reach it --------------------------------------------------------------------------------

    def dsn(self, role: str, database: str = patient.DATABASE) -> str:
        """Connection URL of one of the patient's roles."""
        if role == "postgres":
            return self._server.dsn(database=database)
        return self._server.dsn(user=role, database=database, password=self.password(role))

    def password(self, role: str) -> str:
        """Password of one of the patient's roles."""
        passwords: dict[str, str] = self._read_state().get("passwords", {})
        if role not in passwords:
            raise SandboxError(f"the sandbox has no role {role!r}", remedy=f"Known: {', '.join(patient.ROLES)}")
        return passwords[role]

    @property
    def port(self) -> int:
        """The patient's TCP port."""
        return self._server.port

    def binary(self, name: str) -> Path:
        """One of PostgreSQL's programs."""
        return self._server.binary(name)

    @contextmanager
    def superuser(self, database: str = patient.DATABASE) -> Iterator[psycopg.Connection]:
        """A superuser's connection with autocommit, closed at the end."""
        import psycopg

        dsn = self.dsn("postgres", database)
        with psycopg.connect(dsn, autocommit=True, application_name="runbook:sandbox", connect_timeout=10) as opened:
            yield opened

    def settings(self) -> dict[str, Any]:
        """The settings, by section, that point the product at this sandbox. They hold passwords."""
        from runbook.sandbox.vendors import credentials

        state = self._read_state()
        found: dict[str, Any] = {
            "postgres": {
                "dsn": self.dsn("monitor"),
                "action_dsn": self.dsn("oncall"),
                "reserve_dsn": self.dsn("reserve"),
            },
            "app": {},
            "workers": {"hosts": ["local"], "tmp_paths": [str(self.directory)]},
            **credentials.settings(_vendors_url(state), state["vendors"]["token"]),
        }
        if "application" in state:
            found |= self._stack.settings(state, _vendors_url(state))
        found["app"]["log_paths"] = [str(self.app_log)]
        return found

    # -- what faults reach for ---------------------------------------------------------------------

    @property
    def has_application(self) -> bool:
        """Whether the application runs here, and not only the database."""
        return "application" in self._read_state()

    @property
    def vendors(self) -> Vendors:
        """The control side of the vendors."""
        from runbook.sandbox.vendors.control import Vendors

        state = self._read_state()
        return Vendors(_vendors_url(state), state["vendors"]["token"])

    @property
    def application(self) -> Control:
        """The control side of the application."""
        from runbook.sandbox.application.stage import Control

        known = self._with_application()["application"]
        return Control(known["control"], known["token"])

    def redis(self) -> redis.Redis:
        """A client of the application's Redis, answers as text."""
        import redis

        client: redis.Redis = redis.Redis.from_url(
            self._stack.redis_url(self._with_application()), decode_responses=True
        )
        return client

    def storage(self, service: str = "s3") -> Any:
        """The storage administrator's client of ``s3`` or ``iam``."""
        import boto3

        state = self._with_application()
        key = state["storage"]["keys"]["administrator"]
        return boto3.client(
            service,
            endpoint_url=self._stack.storage_url(state),
            region_name=REGION,
            aws_access_key_id=key["access_key_id"],
            aws_secret_access_key=key["secret_access_key"],
        )

    def tell_storage(self, **said: Any) -> None:
        """Set the storage's behaviour; see :meth:`Stack.tell_storage`."""
        self._stack.tell_storage(self._with_application(), **said)

    @property
    def origin(self) -> str:
        """The application's public address, which is its browsers' origin."""
        return self._stack.front_url(self._with_application())

    @property
    def bucket(self) -> str:
        """The application's bucket."""
        return BUCKET

    def start_worker(self, mode: str = "ok", **orders: Any) -> None:
        """Replace the worker by one in that mode."""
        state = self._with_application()
        self._stack.start_worker(state, mode, **orders)
        self._write_state(state)

    def restart_worker(self) -> None:
        """Let the worker end and start a healthy one; what ``workers.restart`` of the settings does."""
        state = self._with_application()
        self._stack.restart_worker(state)
        self._write_state(state)

    def stop_worker(self) -> None:
        """End the worker at once."""
        self._stack.stop_worker(self._with_application())

    # -- helpers --------------------------------------------------------------------------------

    def _create_patient(self) -> dict[str, str]:
        passwords = patient.new_passwords()
        with self.superuser("postgres") as connection:
            # What an interrupted "up" left half-made is made anew.
            connection.execute(f"DROP DATABASE IF EXISTS {patient.DATABASE}".encode())
            for role in ("app_owner", *patient.ROLES):
                connection.execute(f"DROP ROLE IF EXISTS {role}".encode())
            patient.create_roles(connection, passwords)
        with self.superuser() as connection:
            patient.create_content(connection)
        return passwords

    def _start(self, state: dict[str, Any]) -> None:
        """Launch everything first, then wait: most of the time is Python importing."""
        vendors = None
        if not processes.is_running(state.get("vendors", {}).get("pid"), VENDORS_MODULE):
            vendors = processes.launch(VENDORS_MODULE, log=self.directory / "vendors.log", owned=self._owned)
            token = secrets.token_urlsafe(16)
            vendors.give({"token": token})
            state["vendors"] = {"token": token}
        if "application" in self._systems:
            self._stack.launch(state)
        self._server.start()
        if "passwords" not in state:
            state["passwords"] = self._create_patient()
        if vendors is not None:
            child = vendors.ready()
            state["vendors"] |= {"pid": child.pid, "port": child.greeting["port"]}
        if "application" in self._systems:
            self._settle(state)

    def _settle(self, state: dict[str, Any]) -> None:
        from runbook.sandbox.vendors import credentials
        from runbook.sandbox.vendors.control import Vendors

        url, token = _vendors_url(state), state["vendors"]["token"]
        known, sections = credentials.Credentials.of(token), credentials.settings(url, token)
        if "application" not in state:
            # The application's content is all settled; what is uploaded from now on is in the works.
            with self.superuser() as connection:
                connection.execute("UPDATE content SET status = 'READY' WHERE status = 'PROCESSING'")
        self._stack.settle(
            state,
            {
                "database_dsn": self._dsn("web", state),
                "worker_dsn": self._dsn("worker", state),
                "vendors_url": url,
                "stripe_key": known.stripe,
                "sentry_key": known.sentry_ingest,
                **{name: section for name, section in sections.items() if name in ("mux", "sentry")},
                "webhook_secret": known.mux_webhook,
            },
        )
        vendors = Vendors(url, token)
        vendors.change("mux", webhook_url=f"{self._stack.front_url(state)}/api/webhooks/mux")
        vendors.change("github", **self._stack.deploy(state))

    def _with_application(self) -> dict[str, Any]:
        state = self._read_state()
        if "application" not in state:
            raise SandboxError("this sandbox has no application", remedy="Start it with all its systems")
        return state

    def _dsn(self, role: str, state: Mapping[str, Any]) -> str:
        return self._server.dsn(user=role, database=patient.DATABASE, password=state["passwords"][role])

    def _read_state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self.directory / "state.json").read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SandboxError(
                f"{self.directory / 'state.json'} cannot be read: {error}", remedy="Remove the directory by hand"
            ) from None
        return state

    def _write_state(self, state: Mapping[str, Any]) -> None:
        fresh = self.directory / "state.json.new"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as out:
            json.dump(state, out)
        fresh.replace(self.directory / "state.json")


def _vendors_url(state: Mapping[str, Any]) -> str:
    return f"http://127.0.0.1:{state['vendors']['port']}"


def as_environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as ``RUNBOOK_<SECTION>__<KEY>`` variables; lists and deeper maps become JSON."""
    flat: dict[str, str] = {}
    for section, values in settings.items():
        if not isinstance(values, Mapping) or section in ("thresholds", "services", "status_pages"):
            flat[f"{ENV_PREFIX}{section.upper()}"] = json.dumps(values)
            continue
        for key, value in values.items():
            flat[f"{ENV_PREFIX}{section.upper()}__{key.upper()}"] = (
                value if isinstance(value, str) else json.dumps(value)
            )
    return flat


def laid_over(settings: Mapping[str, Any], *more: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Nested settings with some of others in their place, section by section."""
    laid = dict(settings)
    for sections in more:
        for section, values in sections.items():
            laid[section] = {**laid.get(section, {}), **values}
    return laid


def as_toml(settings: Mapping[str, Any]) -> str:
    """Nested settings as the text of a ``runbook.toml``."""
    return "\n".join(_tables(settings, ()))


def _tables(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """A table's own keys first, then the tables below it. A JSON string, number or list is one in TOML as well."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    if path and plain:
        yield f"[{'.'.join(json.dumps(part) for part in path)}]"
    yield from (f"{key} = {_inline(value)}" for key, value in plain.items())
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _tables(value, (*path, key))


def _inline(value: Any) -> str:
    """A value on one line; tables in a list are written inline."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)

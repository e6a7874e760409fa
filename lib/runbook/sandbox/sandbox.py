"""The sandbox as a whole: the patient and the vendors' simulators in one directory, up, down, and settings for them.

``up`` leaves the systems running after the process that called it, so that a second terminal finds them; ``down`` ends
them by the pids that it wrote down, recognises each before it signals it, and leaves neither process nor file.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import structlog

from runbook.embedded import EmbeddedPostgres
from runbook.errors import SandboxError
from runbook.sandbox import holder, patient, processes
from runbook.sandbox.vendors import credentials
from runbook.sandbox.vendors.control import Vendors
from runbook.settings import ENV_PREFIX, data_dir

if TYPE_CHECKING:
    import psycopg

log = structlog.get_logger(__name__)

SIMULATOR_MODULE = "runbook.sandbox.vendors"


class Sandbox:
    """A patient and a simulator of the vendors.

    Parameters
    ----------
    directory
        Where it lives; default: ``sandbox/<name>`` under the data directory. Two sandboxes in two directories do not
        know of each other.
    owned
        End the systems when the thread that started them ends, however it ends. For tests and drills.
    """

    def __init__(self, directory: Path | None = None, *, name: str = "default", owned: bool = False) -> None:
        self.directory = Path(directory) if directory is not None else data_dir() / "sandbox" / name
        self.app_log = self.directory / "app.log"
        self._owned = owned
        self._server = EmbeddedPostgres(self.directory / "patient", settings=patient.SETTINGS, owned=owned)

    # -- life --------------------------------------------------------------------------------

    def up(self) -> Sandbox:
        """Start what does not run yet; returns when all of it answers."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._server.start()
        try:
            state = self._read_state()
            if "passwords" not in state:
                state["passwords"] = self._create_patient()
            if not processes.is_running(state.get("vendors_pid"), SIMULATOR_MODULE):
                state |= self._start_simulator()
            self.app_log.touch(mode=0o600)
            self._write_state(state)
        except BaseException:
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
        processes.end(self._read_state().get("vendors_pid"), SIMULATOR_MODULE)
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
        """What runs: ``{up, directory, patient: {pid, port} | null, vendors: {pid, url} | null, fault}``."""
        state = self._read_state() if self.directory.is_dir() else {}
        pid = self._server.pid
        vendors = state.get("vendors_pid")
        simulated = processes.is_running(vendors, SIMULATOR_MODULE)
        return {
            "up": pid is not None and simulated,
            "directory": str(self.directory),
            "patient": {"pid": pid, "port": self._server.port} if pid is not None else None,
            "vendors": {"pid": vendors, "url": f"http://127.0.0.1:{state['vendors_port']}"} if simulated else None,
            "fault": holder.injected(self.directory),
        }

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

    @property
    def vendors(self) -> Vendors:
        """What tells the simulated vendors how to fare."""
        state = self._read_state()
        return Vendors(f"http://127.0.0.1:{state['vendors_port']}", state["vendors_token"])

    def settings(self) -> dict[str, Any]:
        """The settings, by section, that point the product at this sandbox. They hold passwords."""
        state = self._read_state()
        vendors = credentials.settings(f"http://127.0.0.1:{state['vendors_port']}", state["vendors_token"])
        return {
            "postgres": {
                "dsn": self.dsn("monitor"),
                "action_dsn": self.dsn("oncall"),
                "reserve_dsn": self.dsn("reserve"),
            },
            "app": {"log_paths": [str(self.app_log)]},
            **vendors,
        }

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

    def _start_simulator(self) -> dict[str, Any]:
        import secrets

        token = secrets.token_urlsafe(16)
        child = processes.spawn(
            SIMULATOR_MODULE, {"token": token}, log=self.directory / "vendors.log", owned=self._owned
        )
        return {"vendors_pid": child.pid, "vendors_port": child.greeting["port"], "vendors_token": token}

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


def as_toml(settings: Mapping[str, Any]) -> str:
    """Nested settings as the text of a ``runbook.toml``."""
    return "\n".join(_tables(settings, ()))


def _tables(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """A table's own keys first, then the tables below it. A JSON string, number or list is one in TOML as well."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    if path and plain:
        yield f"[{'.'.join(json.dumps(part) for part in path)}]"
    yield from (f"{key} = {json.dumps(value)}" for key, value in plain.items())
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _tables(value, (*path, key))

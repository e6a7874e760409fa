"""Run: what a notebook holds while it runs.

``start`` gives a run its connectors, its recording and its samples; ``Run.conclude`` hands the recorded readings to a
pure diagnosis and displays what came out. The same cells run headless and in JupyterLab: a driver leaves a *lease*
(run id, diagnosing settings, where to record) before the first cell, and without one the settings in force are used.
A run holds diagnosing credentials only.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook import cards, form, publishing, views
from runbook import settings as settings_module
from runbook.ahead import Ahead
from runbook.broker_client import BrokerClient, BrokerUnreachable
from runbook.connectors.base import Context
from runbook.connectors.systems import Systems
from runbook.errors import NotFound
from runbook.progress import Progress, is_live
from runbook.recording import Recorder
from runbook.redaction import Redactor, environment_secrets
from runbook.result import Findings, Reading
from runbook.sampling import Sampler
from runbook.store.ids import new_run_id

if TYPE_CHECKING:
    from runbook.reporting.charts import Chart
    from runbook.settings import Settings

Diagnosis = Callable[[Sequence[Reading], Mapping[str, Any]], Findings]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What a driver leaves in a kernel before the first cell."""

    run_id: str
    runbook: str
    recording: Path | None
    settings: Settings
    alert: Mapping[str, Any] | None = None
    #: The broker that may act for this run; none in a headless one.
    broker: BrokerClient | None = None


@dataclass
class _Kernel:
    """The state of this kernel: at most one lease, at most one current run."""

    lease: Lease | None = None
    run: Run | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


_kernel = _Kernel()


def accept_lease(payload: str) -> None:
    """Take a driver's lease (JSON); :func:`start` uses it."""
    values = json.loads(payload)
    _kernel.lease = Lease(
        run_id=values["run_id"],
        runbook=values["runbook"],
        recording=Path(values["recording"]) if values.get("recording") else None,
        settings=settings_module.from_plain(values["settings"]),
        alert=values.get("alert"),
    )


def current() -> Run:
    """The run of this kernel.

    Raises
    ------
    LookupError
        ``start`` has not been called yet.
    """
    if _kernel.run is None:
        raise LookupError("no run yet: the cell with run = start(…) comes first")
    return _kernel.run


def start(runbook: str, **parameters: Any) -> Run:
    """Begin a run of ``runbook`` with these parameters, and make ``%%sql`` and ``%%sh`` speak to its systems."""
    lease = _kernel.lease
    if lease is None or lease.runbook != runbook:
        plain, broker = _diagnosing(str(parameters.get("service", "")))
        lease = Lease(
            run_id=new_run_id(),
            runbook=runbook,
            recording=None,
            settings=settings_module.from_plain(plain),
            broker=broker,
        )
    if _kernel.run is not None:
        _kernel.run.close()
    _kernel.run = Run(lease, parameters)
    _register_magics()
    return _kernel.run


def _diagnosing(service: str) -> tuple[dict[str, Any], BrokerClient | None]:
    """The settings that diagnose: those of the broker beside this kernel, else those in force here."""
    broker = BrokerClient.from_environment()
    if broker is not None:
        with contextlib.suppress(BrokerUnreachable):
            return broker.diagnosing(service), broker
    return settings_module.load().for_service(service).diagnosing(), None


def _register_magics() -> None:
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is not None:
        shell.extension_manager.load_extension("runbook.magics")


class Run(Systems):
    """One run: its parameters, its connectors, its readings, what it concludes."""

    def __init__(self, lease: Lease, parameters: Mapping[str, Any]) -> None:
        self.id = lease.run_id
        self.runbook = lease.runbook
        self.parameters = dict(parameters)
        self.alert = lease.alert
        secrets = [*lease.settings.secrets(), *environment_secrets(os.environ)]
        self._watched = lease.recording is None and is_live()
        progress = Progress(watched=self._watched)
        context = Context(recorder=Recorder(lease.recording), redactor=Redactor(secrets), progress=progress)
        super().__init__(context, lease.settings)
        self.findings: Findings | None = None
        self._broker = lease.broker
        self._headless = lease.recording is not None
        self._ahead = Ahead(progress)
        self._sampler: Sampler | None = None
        self.started_at = self.context.now()
        self.window = _window(self.started_at, self.parameters)

    @property
    def readings(self) -> list[Reading]:
        """All readings so far."""
        return self.context.recorder.readings

    def ahead(self, **takes: Callable[[], Reading]) -> None:
        """Begin these fetches now, by name, while the notebook goes on; :meth:`fetch` gives their readings."""
        self._ahead.begin(takes)

    def fetch(self, name: str) -> Reading:
        """The reading that :meth:`ahead` began under that name; taken anew when the cell is run again."""
        return self._ahead.fetch(name)

    def sample(self, take: Callable[[], object], *, samples: int, seconds: float) -> None:
        """Call ``take`` ``samples`` times, ``seconds`` apart, while the notebook goes on; the first time is now."""
        take()
        self._sampler = Sampler(take, samples - 1, seconds, watched=self._watched)

    def wait_for_samples(self) -> None:
        """Return when the last sample is in."""
        if self._sampler is not None:
            self._sampler.wait()

    def conclude(self, diagnose: Diagnosis) -> None:
        """Hand the readings to ``diagnose`` and display its findings as the run's result."""
        self.wait_for_samples()
        self._ahead.wait()
        self.findings = diagnose(self.readings, self.parameters)
        views.result(self.findings)

    # -- what a cell shows ------------------------------------------------------------------------------------------

    def show(self, reading: Reading | None, caption: str = "") -> None:
        """Show a reading: its rows, or why it is unknown."""
        if reading is not None:
            views.reading(reading, caption)

    def last(self, name: str) -> Reading | None:
        """The latest reading of that name."""
        return next((r for r in reversed(self.readings) if r.name == name), None)

    def last_row(self, name: str) -> dict[str, Any] | None:
        """First row of the latest reading of that name; ``None`` when it is unknown or empty."""
        reading = self.last(name)
        return reading.rows[0] if reading is not None and reading.known and reading.rows else None

    @property
    def window_start(self) -> str:
        """Begin of the window, ISO 8601 in UTC to the second."""
        return self.window[0].isoformat(timespec="seconds")

    def connections_chart(self) -> Chart | None:
        """Sessions by state against the limit; nothing when they are unknown."""
        share = float(self.parameters.get("threshold_percent", 80)) / 100
        return views.connections_chart(self.last_row("headroom"), self.last("sessions"), threshold_share=share)

    @staticmethod
    def chart(name: str, *given: Any, **options: Any) -> Chart | None:
        """A drawing of ``runbook.reporting.<name>_chart``, or nothing where there is nothing to draw."""
        return views.chart(name, *given, **options)

    def show_lock_tree(self, blockers: Reading) -> None:
        """Show the ``blockers`` reading from the root down."""
        if blockers.known and blockers.rows:
            views.lock_tree(blockers)
        else:
            self.show(blockers, "Lock waits")

    def show_actions(self) -> None:
        """Show the proposed actions with what to copy; beside a broker also with what plans and applies them."""
        if self._broker is None:
            views.actions(self.findings)
        else:
            cards.show(self.findings, self._concluded(), self._broker)

    def order(self, kind: str, target: Mapping[str, Any] | None = None, *, title: str = "") -> None:
        """Order what this run did not propose, as a card to plan and apply; without a broker it shows what to copy.

        Parameters
        ----------
        kind
            ``alertmanager.silence``, or short ``silence``; ``pagerduty.note``, ``discord.post``, ``pgbouncer.reload`` …
        target
            What it is about: ``{"minutes": 60, "comment": "known"}``. What is left out is taken from the run's alert
            and the settings where they know it.
        """
        notebook = publishing.known_file()
        wish = {"run_id": self.id, "kind": kind, "targets": [dict(target)] if target else [], "title": title,
                "notebook": str(notebook) if notebook else None}  # fmt: skip
        cards.order(wish, self._concluded(), self._broker)

    def _concluded(self) -> dict[str, Any]:
        """What this run found, as the broker takes it in."""
        findings = {} if self.findings is None else self.findings.as_dict()
        return {"run_id": self.id, "runbook": self.runbook, "parameters": self.parameters, "findings": findings}

    def publish(self, notebook: str = "") -> None:
        """Archive this notebook, with its outputs as they are saved next, as the run's report, and announce it.

        Parameters
        ----------
        notebook
            Its file, where the Jupyter front end does not tell.
        """
        if self._headless:
            views.note("A headless run is archived and announced by whoever started it.")
            return
        try:
            path = publishing.notebook_file(notebook)
        except NotFound as error:
            views.note(f"Not published: {error}")
            return
        worked = {
            "run_id": self.id,
            "runbook": self.runbook,
            "parameters": self.parameters,
            "started_at": self.started_at.isoformat(),
            "readings": [reading.as_dict() for reading in self.readings],
        }
        publishing.publish(worked, path, self._broker)

    def show_checks(self, checks: Sequence[Mapping[str, Any]]) -> None:
        """Show guards that are or are not in place."""
        views.checks(checks)

    def show_message(self) -> None:
        """Show a draft for the incident channel."""
        if self.findings is not None:
            views.message(self.findings, self.runbook)
            if self._broker is not None:
                views.note("run.publish() archives this notebook as the report of its run, and posts it.")

    def close(self) -> None:
        """Give back what the run holds."""
        if self._sampler is not None:
            self._sampler.cancel()
        self._ahead.close()
        if "postgres" in self.__dict__:
            self.postgres.close()
        self.context.recorder.close()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """What a cell shows of the run: which it is, and before a person a form that runs it again."""
        if not self._watched:
            return {"text/plain": repr(self)}
        return form.bundle(self.runbook, self.parameters, self.settings, self._broker, about=repr(self))

    def __repr__(self) -> str:
        return f"run {self.id} of {self.runbook}, window {self.window[0]:%Y-%m-%d %H:%M} to {self.window[1]:%H:%M} UTC"


def _window(now: datetime, parameters: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """The stretch of time that the run looks at: from ``window_minutes`` before the alert began until now."""
    anchor = now
    if parameters.get("alert_at"):
        try:
            given = datetime.fromisoformat(str(parameters["alert_at"]))
            if given.tzinfo is not None:
                anchor = min(given.astimezone(UTC), now)
        except (ValueError, OverflowError):
            anchor = now
    try:
        return anchor - timedelta(minutes=float(parameters.get("window_minutes", 30))), now
    except OverflowError:  # an alert of the year 1
        return anchor, now

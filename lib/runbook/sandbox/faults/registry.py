"""The registry: what each fault is called, what a good verdict says about it, and how ids are put together."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import structlog

from runbook.errors import SandboxError
from runbook.sandbox.faults import state
from runbook.sandbox.faults.scene import Scene
from runbook.sandbox.sandbox import ALL, DATABASE, System

if TYPE_CHECKING:
    from runbook.catalog import Runbook
    from runbook.sandbox.sandbox import Sandbox

log = structlog.get_logger(__name__)

#: Places that an ordinary user's PATH leaves out.
SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_DATABASE_MODULES = ("sessions", "locks", "limits", "clients", "poolers", "disks")
"""Faults of these need the patient alone, or the machine; those of the others an application."""

#: Sizes of faults in a compound, where the usual ones would not fit into the slots together.
COMPOUND_SIZES: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "P01+P02": {"P01": {"sessions": 9}, "P02": {"waiters": 10}},
    "Q01+Q02": {},
    "Q08+Q02": {},
    "M01+M08": {"M01": {"most_mb": 1400}, "M08": {"limit_mb": 48}},
    "K06+K07": {"K06": {"leaked": 50, "maxclients": 60}},
    "D01+D02": {},
    "D01+D07": {},
    "L01+L08": {},
}


SCENARIOS: Mapping[str, str] = {
    "S01": "E01",
    "S02": "E06",
    "S03": "E10",
    "S04": "insufficient",
    "S05": "E03~sentry_401",
    "S06": "P01",
    "S07": "P02",
    "S08": "P04",
    "S09": "P06",
    "S10": "P10",
    "S11": "P01+P02",
    "S12": "V01",
    "S13": "V09:input",
    "S14": "V12",
    "S15": "L01",
    "S16": "L08",
    "S17": "D01",
    "S18": "D02",
    "S19": "D16",
    "S20": "M01",
    "S21": "M04",
    "S22": "H05",
    "S23": "H07",
    "S24": "K05",
    "S25": "Q02",
}
"""The scenarios of the reference drill set, by the fault that plays each."""

#: Sampling that suits a drill: short intervals, for every fault.
SAMPLING: Mapping[str, Any] = {"sample_seconds": 0.5}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault."""

    #: ``P01``, ``healthy``.
    id: str
    title: str
    inject: Callable[..., None]
    #: Causes that the verdict must name, of those that its runbook knows.
    expects: tuple[str, ...]
    #: Outcomes that are right.
    outcomes: tuple[str, ...] = ("diagnosed",)
    #: Runbooks that it is for; empty = those that know one of the causes it expects.
    runbooks: tuple[str, ...] = ()
    #: Thresholds under which the fault is seen within seconds.
    scaled: Mapping[str, Any] = field(default_factory=dict)
    #: Programs with their Debian packages, and Python modules with their extras.
    programs: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)
    #: What else the machine must give (:mod:`.machine`): each says why it cannot, or ``None``.
    needs: tuple[Callable[[], str | None], ...] = ()

    @property
    def needs_only_database(self) -> bool:
        return "healthy" in self.outcomes or self.inject.__module__.rpartition(".")[2] in _DATABASE_MODULES


@dataclass(frozen=True, kw_only=True)
class Handicap:
    """Something that the diagnosis lacks: a privilege, a system that does not answer."""

    title: str
    apply: Callable[[Scene], None]
    #: Fault that a full drill tries it with.
    tried_with: str
    #: Whether the cause cannot be told without it; else it must be told all the same.
    blinds: bool
    #: Sources that the report must name as not checked.
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FaultPlan:
    """A fault id taken apart: which faults in which sizes, under which handicap, and what is expected then."""

    id: str
    faults: tuple[tuple[Fault, Mapping[str, Any]], ...]
    handicap: Handicap | None = None
    #: Causes of the runbook that looks; ``None`` = not said.
    causes: frozenset[str] | None = None

    @property
    def title(self) -> str:
        titles = " and ".join(fault.title for fault, _ in self.faults)
        return f"{titles}; {self.handicap.title}" if self.handicap else titles

    @property
    def expects(self) -> tuple[str, ...]:
        """Causes that must be named. Who cannot see, must not guess: none under a handicap that blinds."""
        if self.handicap is not None and self.handicap.blinds:
            return ()
        every = (cause for fault, _ in self.faults for cause in fault.expects)
        return tuple(cause for cause in every if self.causes is None or cause in self.causes)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Outcomes that are right."""
        if self.handicap is not None and self.handicap.blinds:
            return ("undetermined",)
        return self.faults[0][0].outcomes

    @property
    def unknown(self) -> tuple[str, ...]:
        """Sources that must be named as not checked."""
        return self.handicap.unknown if self.handicap is not None else ()

    @property
    def scaled(self) -> dict[str, Any]:
        """Thresholds under which it is seen within seconds."""
        return {**SAMPLING, **{name: value for fault, _ in self.faults for name, value in fault.scaled.items()}}

    def missing(self) -> str | None:
        """Why it cannot be injected on this machine, ``None`` when it can."""
        for fault, _ in self.faults:
            for program, package in fault.programs.items():
                if find_program(program) is None:
                    return f"needs {program} (Debian package {package})"
            for module, extra in fault.modules.items():
                if find_spec(module) is None:
                    return f"needs the Python module {module} (extra {extra})"
            if lacking := next((said for need in fault.needs if (said := need())), None):
                return lacking
        return None


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A fault as it stands in the patient now."""

    plan: FaultPlan
    #: Settings, by section, to lay over the sandbox's own.
    settings: Mapping[str, Mapping[str, Any]]
    #: Per expected cause, values that the verdict's details must name.
    named: Mapping[str, Sequence[Any]]
    #: Labels that the alert of this fault carries beside the usual ones.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Where the files of a system lie that it started for itself, by its name.
    places: Mapping[str, Path] = field(default_factory=dict)
    #: Has its clients go on by themselves, the fault being there still; see :meth:`Scene.go_on`.
    go_on: Callable[[], None] = lambda: None


_FAULTS: dict[str, Fault] = {}
_HANDICAPS: dict[str, Handicap] = {}


def fault(
    id: str,
    title: str,
    *,
    expects: tuple[str, ...] | None = None,
    outcomes: tuple[str, ...] = ("diagnosed",),
    runbooks: tuple[str, ...] = (),
    scaled: Mapping[str, Any] | None = None,
    programs: Mapping[str, str] | None = None,
    modules: Mapping[str, str] | None = None,
    needs: tuple[Callable[[], str | None], ...] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register the decorated function, which injects into the scene that it is given, as the fault ``id``.

    Without ``expects`` it is the cause of that name: ``V09`` for the variant ``V09:outage``.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        _FAULTS[id] = Fault(
            id=id,
            title=title,
            inject=function,
            expects=(id.partition(":")[0],) if expects is None else expects,
            outcomes=outcomes,
            runbooks=runbooks,
            scaled=scaled or {},
            programs=programs or {},
            modules=modules or {},
            needs=needs,
        )
        return function

    return register


def handicap(
    name: str, title: str, *, tried_with: str, blinds: bool = True, unknown: tuple[str, ...] = ()
) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    """Register the decorated function, which takes something away from the diagnosis, as the handicap ``name``."""

    def register(function: Callable[[Scene], None]) -> Callable[[Scene], None]:
        _HANDICAPS[name] = Handicap(title=title, apply=function, tried_with=tried_with, blinds=blinds, unknown=unknown)
        return function

    return register


def find_program(name: str) -> Path | None:
    """Path of a program, also where only root's PATH would find it."""
    found = shutil.which(name) or shutil.which(name, path=":".join(SYSTEM_PATHS))
    return Path(found) if found else None


@cache
def _registry() -> Mapping[str, Fault]:
    here = Path(__file__).parent
    order = [*_DATABASE_MODULES, *(name for _, name, _ in iter_modules([str(here)]) if name not in _DATABASE_MODULES)]
    for module in order:
        import_module(f"runbook.sandbox.faults.{module}")
    return _FAULTS


def known(runbook: Runbook) -> list[str]:
    """Ids of everything that a full drill of this runbook injects: each fault, the usual compounds, the handicaps."""
    singles = [one.id for one in _registry().values() if _is_for(one, runbook)]
    compounds = [id for id in COMPOUND_SIZES if set(id.split("+")) <= set(singles)]
    handicapped = [f"{h.tried_with}~{name}" for name, h in _HANDICAPS.items() if h.tried_with in singles]
    return [*singles, *compounds, *handicapped]


def systems(runbook: Runbook) -> tuple[System, ...]:
    """What of the sandbox the faults of this runbook take place in."""
    needing = [one for one in _registry().values() if _is_for(one, runbook) and not one.needs_only_database]
    return ALL if needing else DATABASE


def suits(id: str, runbook: Runbook) -> bool:
    """Whether this fault, or compound, or scenario, is one of this runbook's.

    Raises
    ------
    SandboxError
        It is unknown.
    """
    return all(_is_for(one, runbook) for one, _ in plan(id).faults)


def _is_for(one: Fault, runbook: Runbook) -> bool:
    if one.runbooks:
        return runbook.name in one.runbooks
    return "healthy" in one.outcomes or bool(set(one.expects) & set(runbook.causes))


def plan(id: str, *, causes: Collection[str] | None = None, **sizes: Any) -> FaultPlan:
    """Take a fault id apart. ``sizes`` (sessions, application, …) override the defaults of a single fault.

    Parameters
    ----------
    id
        A fault, a compound, either with a handicap, or a scenario of the reference drill set.
    causes
        Causes of the runbook that will look: of others it need not know.

    Raises
    ------
    SandboxError
        Unknown fault, handicap or size.
    """
    registry = _registry()
    together, _, hindered = SCENARIOS.get(id, id).partition("~")
    if hindered and hindered not in _HANDICAPS:
        raise SandboxError(f"unknown handicap {hindered!r}", remedy=f"Known: {', '.join(_HANDICAPS)}")
    parts = together.split("+")
    for part in parts:
        if part not in registry:
            raise SandboxError(f"unknown fault {part!r}", remedy=f"Known: {', '.join(registry)}")
    special = COMPOUND_SIZES.get(together, {})
    chosen = [
        (registry[part], {**_share(registry[part], len(parts)), **special.get(part, {}), **sizes}) for part in parts
    ]
    for one, given in chosen:
        wrong = given.keys() - inspect.signature(one.inject).parameters.keys()
        if wrong:
            raise SandboxError(f"fault {one.id} has no size {', '.join(sorted(wrong))}")
    return FaultPlan(
        id=id,
        faults=tuple(chosen),
        handicap=_HANDICAPS[hindered] if hindered else None,
        causes=frozenset(causes) if causes is not None else None,
    )


def _share(one: Fault, parts: int) -> dict[str, int]:
    """In a compound each fault takes its part of what it takes alone, so that the slots suffice."""
    if parts == 1:
        return {}
    usual = inspect.signature(one.inject).parameters.items()
    return {name: max(1, size.default // parts) for name, size in usual if type(size.default) is int}


@contextmanager
def inject(
    fault_id: str | FaultPlan, sandbox: Sandbox, *, thresholds: Mapping[str, Any] | None = None
) -> Iterator[Injected]:
    """Inject a fault for the time of the block.

    Parameters
    ----------
    fault_id
        An id or a plan made from one.
    sandbox
        It must be up and clean.
    thresholds
        Thresholds in force; default: the fault's scaled ones. The fault waits until it is old enough for them.

    Raises
    ------
    SandboxError
        The patient was not clean before, the fault could not be injected, or something of it is left afterwards.
    """
    plan_ = fault_id if isinstance(fault_id, FaultPlan) else plan(fault_id)
    lacking = plan_.missing()
    if lacking:
        raise SandboxError(f"fault {plan_.id} {lacking}", remedy="Install it")
    before = state.require_clean(sandbox)
    scene = Scene(sandbox, plan_.scaled if thresholds is None else thresholds)
    try:
        try:
            for one, sizes in plan_.faults:
                one.inject(scene, **sizes)
        except _database_error() as error:
            raise SandboxError(f"fault {plan_.id} could not be injected: {error}") from error
        if plan_.handicap is not None:
            plan_.handicap.apply(scene)
        log.info("fault injected", fault=plan_.id)
        named = {cause: tuple(values) for cause, values in scene.named.items() if cause in plan_.expects}
        yield Injected(plan=plan_, settings=scene.settings, named=named, labels=scene.labels, places=scene.places,
                       go_on=scene.go_on)  # fmt: skip
    finally:
        try:
            scene.heal()
        except _database_error() as error:
            raise SandboxError(f"fault {plan_.id} could not be healed: {error}") from error
        state.require_restored(sandbox, before)
        log.info("fault healed", fault=plan_.id)


def _database_error() -> type[Exception]:
    import psycopg

    return psycopg.Error

"""The registry: what each fault is called, what a good verdict says about it, and how ids are put together."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from runbook.errors import SandboxError
from runbook.sandbox.faults import state
from runbook.sandbox.faults.scene import Scene

if TYPE_CHECKING:
    from runbook.sandbox.sandbox import Sandbox

log = structlog.get_logger(__name__)

#: Places that an ordinary user's PATH leaves out.
SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_MODULES = ("sessions", "locks", "limits", "clients", "poolers")

HANDICAPS: Mapping[str, str] = {"no_pg_monitor": "the diagnosing role lacks pg_monitor"}

#: Sizes of faults in a compound, where the usual ones would not fit into the slots together.
COMPOUND_SIZES: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "P01+P02": {"P01": {"sessions": 9}, "P02": {"waiters": 10}},
}


#: Sampling that suits a drill: short intervals, for every fault.
SAMPLING: Mapping[str, Any] = {"sample_seconds": 0.5}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault."""

    #: ``P01``, ``healthy``.
    id: str
    title: str
    inject: Callable[..., None]
    #: Causes that the verdict must name.
    expects: tuple[str, ...]
    outcome: str = "diagnosed"
    #: Thresholds under which the fault is seen within seconds.
    scaled: Mapping[str, Any] = field(default_factory=dict)
    #: Programs with their Debian packages, and Python modules with their extras.
    programs: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FaultPlan:
    """A fault id taken apart: which faults in which sizes, under which handicap, and what is expected then."""

    id: str
    faults: tuple[tuple[Fault, Mapping[str, Any]], ...]
    handicap: str | None = None

    @property
    def title(self) -> str:
        titles = " and ".join(fault.title for fault, _ in self.faults)
        return f"{titles}; {HANDICAPS[self.handicap]}" if self.handicap else titles

    @property
    def expects(self) -> tuple[str, ...]:
        """Causes that must be named. Who cannot see, must not guess: none under a handicap."""
        return () if self.handicap else tuple(cause for fault, _ in self.faults for cause in fault.expects)

    @property
    def outcome(self) -> str:
        return "undetermined" if self.handicap else self.faults[0][0].outcome

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
        return None


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A fault as it stands in the patient now."""

    plan: FaultPlan
    #: Settings, by section, to lay over the sandbox's own.
    settings: Mapping[str, Mapping[str, Any]]
    #: Per expected cause, values that the verdict's details must name.
    named: Mapping[str, Sequence[Any]]


_FAULTS: dict[str, Fault] = {}


def fault(
    id: str,
    title: str,
    *,
    expects: tuple[str, ...] | None = None,
    outcome: str = "diagnosed",
    scaled: Mapping[str, Any] | None = None,
    programs: Mapping[str, str] | None = None,
    modules: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register the decorated function, which injects into the scene that it is given, as the fault ``id``."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        _FAULTS[id] = Fault(
            id=id,
            title=title,
            inject=function,
            expects=(id,) if expects is None else expects,
            outcome=outcome,
            scaled=scaled or {},
            programs=programs or {},
            modules=modules or {},
        )
        return function

    return register


def find_program(name: str) -> Path | None:
    """Path of a program, also where only root's PATH would find it."""
    found = shutil.which(name) or shutil.which(name, path=":".join(SYSTEM_PATHS))
    return Path(found) if found else None


@cache
def _registry() -> Mapping[str, Fault]:
    for module in _MODULES:
        import_module(f"runbook.sandbox.faults.{module}")
    return _FAULTS


def known() -> list[str]:
    """Ids of everything that a full drill injects: each fault, the usual compound, and the handicap."""
    return [*_registry(), *COMPOUND_SIZES, *(f"P01~{handicap}" for handicap in HANDICAPS)]


def plan(id: str, **sizes: Any) -> FaultPlan:
    """Take a fault id apart. ``sizes`` (sessions, application, …) override the defaults of a single fault.

    Raises
    ------
    SandboxError
        Unknown fault, handicap or size.
    """
    causes, _, handicap = id.partition("~")
    if handicap and handicap not in HANDICAPS:
        raise SandboxError(f"unknown handicap {handicap!r}", remedy=f"Known: {', '.join(HANDICAPS)}")
    parts = causes.split("+")
    registry = _registry()
    for part in parts:
        if part not in registry:
            raise SandboxError(f"unknown fault {part!r}", remedy=f"Known: {', '.join(known())}")
    special = COMPOUND_SIZES.get(causes, {})
    chosen = [
        (registry[part], {**_share(registry[part], len(parts)), **special.get(part, {}), **sizes}) for part in parts
    ]
    for one, given in chosen:
        wrong = given.keys() - inspect.signature(one.inject).parameters.keys()
        if wrong:
            raise SandboxError(f"fault {one.id} has no size {', '.join(sorted(wrong))}")
    return FaultPlan(id=id, faults=tuple(chosen), handicap=handicap or None)


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
        if plan_.handicap == "no_pg_monitor":
            scene.settings.setdefault("postgres", {})["dsn"] = sandbox.dsn("nobody_special")
        log.info("fault injected", fault=plan_.id)
        named = {cause: tuple(values) for cause, values in scene.named.items() if cause in plan_.expects}
        yield Injected(plan=plan_, settings=scene.settings, named=named)
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

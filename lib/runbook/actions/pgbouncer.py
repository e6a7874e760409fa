"""PgBouncer: the size of its pools, one database paused or resumed, its files read anew.

What is set at the console holds until PgBouncer starts anew or reads its files; the file itself is for its owner.
Source: reference fault model, R2 (P04, P10).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from runbook.actions.attempts import left_alone, only_target, tried
from runbook.actions.kinds import Kind, Said
from runbook.actions.one_value import OneValue
from runbook.actions.pgbouncer_console import Console, console
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.connectors.base import Context
from runbook.connectors.postgres import Postgres
from runbook.redaction import Redactor
from runbook.result import Precondition

if TYPE_CHECKING:
    from runbook.settings import Settings

SIZE = "default_pool_size"
ROOM = 0.8
"""Share of the usable slots that may be taken. Source: reference fault model, R2."""
_NOT_ATOMIC = "the console takes no condition: a change of the same in the moment between look and change is not seen"


class PoolSize(OneValue):
    """``pgbouncer.pool_size``: the default size of all pools, which the database in question uses."""

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        wanted = only_target(order)
        name, after = str(wanted.get("database") or ""), _whole(wanted.get("to"))
        with console(self.settings) as there:
            there.must_be_admin()
            before, own = _size(there), _whole(there.database(name).get("pool_size"))
            pools = max(1, there.pools())
            address = there.address
        if own != before:
            raise Refused(
                f"{name} has a pool size of its own ({own}), which the default ({before}) does not change",
                remedy="Change it in its line of PgBouncer's configuration, then reload",
            )
        if before == after:
            raise Refused(f"nothing is left to do: {SIZE} is {after} already")
        if not 0 < after <= 2 * before:
            raise Refused(f"{after} is no size to go to from {before}", remedy="One to twice what it is")
        more, free = (after - before) * pools, _free_slots(self.settings)
        if free is not None and more > free:
            raise Refused(f"PostgreSQL has no room: up to {more} sessions more, and {free} below {ROOM:.0%}")
        target = Target(
            name=SIZE, identity={"console": address, "database": name},
            shown=f"{SIZE} of PgBouncer at {address} is {before}; {name} uses it, {pools} pools are there",
            change=f"{SIZE} becomes {after}", before=before, after=after,
        )  # fmt: skip
        return Draft(
            targets=[target],
            preconditions=(
                Precondition(label=f"{SIZE} is still {before}", holds=True, value=before),
                Precondition(label=f"PostgreSQL has room below {ROOM:.0%}", holds=None if free is None else True,
                             value="unknown" if free is None else f"{free} slots for up to {more} sessions"),
            ),
            risks=(f"every database without a size of its own gets it: up to {more} sessions more in PostgreSQL",
                   "it holds until PgBouncer starts anew or reads its files", _NOT_ATOMIC),
            undo=f"{SIZE} becomes {before} again, unless somebody has changed it since",
        )  # fmt: skip

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        (target,) = plan.draft.targets
        with console(self.settings) as there:
            now, own = _size(there), _whole(there.database(str(target.identity["database"])).get("pool_size"))
        return now == own == target.after, f"{SIZE} is {now}, {target.identity['database']} has {own}"

    def set(self, target: Target, *, expected: Any, value: Any) -> Effect:
        """See :meth:`OneValue.set`."""
        with console(self.settings) as there:
            now = _size(there)
            if there.address != target.identity["console"] or now != expected:
                return left_alone(target.name, f"it is {now} at {there.address} by now")
            return tried(target.name, f"{SIZE} is {value}", lambda: there.set_number(SIZE, value))


class _OfDatabase(OneValue):
    """Pausing and resuming: each the other's undo."""

    #: A pause may be on purpose, in the middle of a switch-over: only a person knows.
    may_be_automatic = False
    may_be_ordered = True
    said: ClassVar[Mapping[str, Said]] = {
        "database": Said(means="its name in PgBouncer's configuration", needed=True),
    }
    word: ClassVar[str]
    #: ``paused`` as it is before and after.
    before: ClassVar[int]
    after: ClassVar[int]
    risks: ClassVar[tuple[str, ...]]
    asked: ClassVar[tuple[Precondition, ...]] = ()

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        name = str(only_target(order).get("database") or "")
        with console(self.settings) as there:
            there.must_be_admin()
            row, address = there.database(name), there.address
        if _whole(row.get("paused")) == self.after:
            raise Refused(f"nothing is left to do: {name} is {_state(self.after)} already")
        target = Target(
            name=name, identity={"console": address, "database": name, **_behind(row)},
            shown=f"database {name} of PgBouncer at {address} is {_state(self.before)}, "
            f"{row.get('current_connections')} connections behind it",
            change=f"{self.word} {name}", before=self.before, after=self.after,
        )  # fmt: skip
        return Draft(
            targets=[target],
            preconditions=(Precondition(label=f"{name} is {_state(self.before)}", holds=True), *self.asked),
            risks=(*self.risks, _NOT_ATOMIC),
            undo=f"{name} is {_state(self.before)} again, unless somebody has done that already",
        )

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        (target,) = plan.draft.targets
        with console(self.settings) as there:
            now = _whole(there.database(target.name).get("paused"))
        return now == target.after, f"{target.name} is {_state(now)}"

    def set(self, target: Target, *, expected: Any, value: Any) -> Effect:
        """See :meth:`OneValue.set`."""
        with console(self.settings) as there:
            row = there.database(target.name)
            same = {"console": there.address, "database": target.name, **_behind(row)} == dict(target.identity)
            if not same or _whole(row.get("paused")) != expected:
                why = f"it is {_state(_whole(row.get('paused')))} by now" if same else "it leads elsewhere by now"
                return left_alone(target.name, why)
            turn = there.pause if value else there.resume
            return tried(target.name, f"{target.name} is {_state(value)}", lambda: turn(target.name))


class Pause(_OfDatabase):
    """``pgbouncer.pause``: no statement of one database is begun until it is resumed."""

    called = "Pause a database in PgBouncer"
    word, before, after = "PAUSE", 0, 1
    risks = ("every client of the database waits until it is resumed, and fails after its own time limit",
             "statements and transactions under way end first; the pause holds for new ones at once")  # fmt: skip


class Resume(_OfDatabase):
    """``pgbouncer.resume``: let one paused database go on."""

    called = "Resume a database in PgBouncer"
    word, before, after = "RESUME", 1, 0
    risks = ("all that waited comes at once",)
    asked = (Precondition(label="nobody paused it on purpose within the hour (PgBouncer does not keep who, or when)",
                          holds=None),)  # fmt: skip


class Reload(Kind):
    """``pgbouncer.reload``: read the configuration's files anew."""

    #: What the files say is seen only afterwards.
    may_be_automatic = False
    may_be_ordered = True
    called = "Let PgBouncer read its files anew"

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        with console(self.settings) as there:
            there.must_be_admin()
            address, print_ = there.address, _fingerprint(there)
        target = Target(
            name=address, identity={"console": address, "configuration": print_},
            shown=f"PgBouncer at {address}, configuration {print_[:12]}", change="its files are read anew",
        )  # fmt: skip
        return Draft(
            targets=[target],
            preconditions=(
                Precondition(label="its configuration is still the same", holds=True, value=print_[:12]),
                Precondition(label="somebody has read what the files say", holds=None),
            ),
            risks=("whatever else stands in the files comes into force as well",
                   "what was set at the console and not in the files is lost", _NOT_ATOMIC),
            undo="irreversible: what the files said before is kept nowhere; put them back and reload again",
        )  # fmt: skip

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        (target,) = plan.draft.targets
        with console(self.settings) as there:
            if {"console": there.address, "configuration": _fingerprint(there)} != dict(target.identity):
                return [left_alone(target.name, "its configuration is another one by now")]
            return [tried(target.name, "its files were read", there.reload)]

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`. PgBouncer does not tell when it read its files, only what it has now."""
        (target,) = plan.draft.targets
        with console(self.settings) as there:
            same = _fingerprint(there) == target.identity["configuration"]
        return None, f"its configuration is {'the same as' if same else 'another one than'} before"


def _size(there: Console) -> int:
    return _whole(there.config().get(SIZE))


def _whole(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise Refused(f"{value!r} is no number") from None


def _behind(row: Mapping[str, Any]) -> dict[str, Any]:
    """Where the database is: another server under the same name is another target."""
    return {name: None if row.get(name) is None else str(row[name]) for name in ("host", "port", "force_user")} | {
        "behind": str(row.get("database"))
    }


def _state(paused: int) -> str:
    return "paused" if paused else "not paused"


def _fingerprint(there: Console) -> str:
    volatile = ("current_connections",)
    rows = [{name: str(v) for name, v in row.items() if name not in volatile} for row in there.databases()]
    text = json.dumps([there.config(), rows], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _free_slots(settings: Settings) -> int | None:
    """Slots of PostgreSQL that may be taken before :data:`ROOM` is; ``None`` when nobody can tell."""
    dsn = settings.postgres.dsn
    if dsn is None:
        return None
    postgres = Postgres(Context(redactor=Redactor(settings.secrets())), dsn.get_secret_value())
    try:
        reading = postgres.probe("headroom")
    finally:
        postgres.close()
    row: Mapping[str, Any] = reading.value[0] if reading.state == "ok" and reading.value else {}
    if not row or row.get("hidden_rows"):
        return None
    return max(0, int(int(row["usable"]) * ROOM) - int(row["clients"]) + int(row["own"]))

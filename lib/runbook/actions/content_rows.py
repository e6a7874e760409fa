"""Bringing rows of ``content`` to where their videos are, row by row, and back.

The provider is asked again for every plan; a row is changed only while its status and the moment of its last change are
what the plan says, compared in the statement. All rows are written in one transaction, and nothing of them but these
two columns. Source: reference fault model, R3 (V10, V14).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from runbook.actions.kinds import Kind
from runbook.actions.looking import context
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.actions.postgres_acting import Connection, acting
from runbook.connectors.mux import Mux
from runbook.connectors.stream import Stream
from runbook.result import Precondition, Reading

if TYPE_CHECKING:
    from runbook.settings import Settings

PROVIDERS = {"mux": "Mux", "stream": "Cloudflare Stream"}
EARLIER = timedelta(minutes=1)

_LOOK = """
SELECT id::text AS id, status::text AS status, "updatedAt"::text AS updated_at
  FROM content WHERE id::text = ANY(%(ids)s)
"""
_RIGHTS = """
SELECT current_user AS role, to_regclass('content')::text AS relation,
       coalesce(has_column_privilege(to_regclass('content'), 'status', 'UPDATE')
                AND has_column_privilege(to_regclass('content'), 'updatedAt', 'UPDATE'), false) AS may
"""
_SET = """
UPDATE content SET status = %(status)s, "updatedAt" = %(updated_at)s
 WHERE id::text = %(id)s AND status::text = %(was_status)s AND "updatedAt" = %(was_updated_at)s
"""


class Resync(Kind):
    """``content.resync``: rows get the status that their videos have at the provider."""

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        wanted = {str(target["id"]): target for target in order.targets if target.get("id")}
        ready = _ready(self.settings, list(wanted.values()))
        with acting(self.settings) as connection:
            _may(connection)
            rows = {str(row["id"]): row for row in connection.execute(_LOOK, {"ids": list(wanted)}).fetchall()}
        now = _written(datetime.now(UTC))
        targets, left = [], []
        for number, target in wanted.items():
            if why := _why_not(rows.get(number), target, ready):
                left.append(f"row {number}: {why}")
            else:
                targets.append(_target(rows[number], target, now))
        if not targets:
            raise Refused("nothing is left to do: " + "; ".join(left or ["no row was named"]))
        return Draft(
            targets=targets, left_alone=left,
            risks=("other columns that the application writes with the status are not written",
                   "whoever is told by the application that an upload is done is not told"),
            preconditions=(
                Precondition(label="the provider says ready, asked just now", holds=True),
                Precondition(label="each row is still as the run saw it", holds=True),
            ),
            undo="each row gets its previous status and time again, unless it has changed since",
        )  # fmt: skip

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        with acting(self.settings) as connection, connection.transaction():
            return [_set(connection, target, target.before, target.after) for target in plan.draft.targets]

    def undo(self, plan: Plan, effects: Sequence[Effect]) -> list[Effect]:
        """See :meth:`Kind.undo`."""
        with acting(self.settings) as connection, connection.transaction():
            return [_set(connection, target, target.after, target.before) for target in plan.draft.targets]

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        done = {effect.target for effect in effects if effect.done}
        ours = {str(t.identity["id"]): t for t in plan.draft.targets if t.name in done}
        with acting(self.settings) as connection:
            rows = {str(row["id"]): row for row in connection.execute(_LOOK, {"ids": list(ours)}).fetchall()}
        other = [number for number, t in ours.items() if rows.get(number, {}).get("status") != t.after["status"]]
        return (False, f"another status: {', '.join(other)}") if other else (True, f"{len(ours)} rows are so")


def _may(connection: Connection) -> None:
    """Raise where the acting role may not write these columns."""
    row = connection.execute(_RIGHTS).fetchone()
    assert row is not None
    if row["relation"] is None:
        raise Refused(f"there is no table content that role {row['role']} sees")
    if not row["may"]:
        raise Refused(
            f"role {row['role']} may not write status and updatedAt of content",
            remedy=f'GRANT UPDATE (status, "updatedAt") ON content TO {row["role"]}',
        )


def _ready(settings: Settings, targets: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], bool]:
    """Whether each of these videos is ready, as its provider says now.

    Raises
    ------
    Refused
        A provider cannot be asked.
    """
    found: dict[tuple[str, str], bool] = {}
    for provider in sorted({str(target["provider"]) for target in targets if target.get("provider") in PROVIDERS}):
        created = [str(t.get("video_created_at")) for t in targets if t.get("provider") == provider]
        reading = _videos(settings, provider, _earliest(created))
        if not reading.known:
            raise Refused(f"{PROVIDERS[provider]} cannot be asked: {reading.reason}", remedy="Try again once it does")
        found |= {(provider, str(row["id"])): row["status"] == "ready" for row in reading.rows}
    return found


def _videos(settings: Settings, provider: str, since: datetime) -> Reading:
    if provider == "mux":
        return Mux(context(settings), settings.mux).assets(since)
    return Stream(context(settings), settings.cloudflare).videos(since)


def _earliest(created: Sequence[str]) -> datetime:
    try:
        return min(datetime.fromisoformat(at) for at in created).astimezone(UTC) - EARLIER
    except ValueError:
        raise Refused("the run did not tell when the videos were made", remedy="Run the runbook again") from None


def _why_not(row: Mapping[str, Any] | None, target: Mapping[str, Any], ready: Mapping[tuple[str, str], bool]) -> str:
    """Why a row must not be written; empty when it may."""
    if target.get("provider") not in PROVIDERS or not target.get("video_id"):
        return "no provider speaks of its video"
    if row is None:
        return "it is gone"
    if (row["status"], row["updated_at"]) != (target.get("status"), target.get("updated_at")):
        return "it has changed since"
    video = (str(target["provider"]), str(target["video_id"]))
    if video not in ready:
        return f"{PROVIDERS[video[0]]} does not know its video"
    if not ready[video]:
        return f"{PROVIDERS[video[0]]} does not say that its video is ready"
    return "it has that status already" if row["status"] == target.get("to") else ""


def _target(row: Mapping[str, Any], target: Mapping[str, Any], now: str) -> Target:
    return Target(
        name=str(row["id"]),
        identity={"id": row["id"], "provider": target["provider"], "video_id": target["video_id"]},
        shown=f"row {row['id']} is {row['status']} since {row['updated_at']}; "
        f"{PROVIDERS[str(target['provider'])]} says ready of {target['video_id']}",
        change=f"status becomes {target['to']}",
        before={"status": row["status"], "updated_at": row["updated_at"]},
        after={"status": target["to"], "updated_at": now},
    )  # fmt: skip


def _set(connection: Connection, target: Target, was: Mapping[str, Any], wanted: Mapping[str, Any]) -> Effect:
    changed = connection.execute(
        _SET,
        {"id": target.identity["id"], "status": wanted["status"], "updated_at": wanted["updated_at"],
         "was_status": was["status"], "was_updated_at": was["updated_at"]},
    ).rowcount  # fmt: skip
    done = changed == 1
    said = f"status is {wanted['status']}" if done else "it has changed meanwhile, and was left alone"
    return Effect(target=target.name, done=done, said=said)


def _written(moment: datetime) -> str:
    """A moment as the column takes it, in UTC; milliseconds are what every application's column keeps."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")

"""Deleting temporary files that workers left: regular files below ``workers.tmp_paths`` that nobody has open.

What a file is, and that nothing keeps it, is looked at again on its host by the command that deletes it. Between its
last look and the deletion lie some milliseconds in which a process may open the file: it keeps what it opened.
Source: reference fault model, R5 (D09).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from runbook.actions.host_acting import known_host, on_host, rows_of
from runbook.actions.kinds import Kind
from runbook.actions.one_by_one import one_by_one
from runbook.actions.plan import Draft, Effect, Order, Plan, Refused, Target
from runbook.result import Precondition

PROC = "/proc"
LOOK = 'host_temporary_file "$@"'
SAME_SECONDS = 60.0
"""A run tells the age of a file in hundredths of an hour: so near, it was written when the run says."""
IDENTITY = ("device", "inode", "bytes", "modified_at")


class Delete(Kind):
    """``files.delete_temporary``: delete files that were left over."""

    def draft(self, order: Order) -> Draft:
        """See :meth:`Kind.draft`."""
        targets, left = [], []
        for target in order.targets:
            host, path = known_host(self.settings, target.get("host")), str(target.get("path"))
            root = self._root(path)
            row = _seen(host, root, path) if root else {"kept_by": "it lies in no directory of workers.tmp_paths"}
            if why := row.get("kept_by") or _written_since(row, target):
                left.append(f"{path} on {host}: {why}")
            else:
                targets.append(_target(host, root, path, row))
        if not targets:
            raise Refused("nothing is left to do: " + "; ".join(left or ["no file was named"]))
        return Draft(
            targets=targets, left_alone=left,
            risks=("what is in the files is lost", "a process that opens one in this moment keeps it until it ends"),
            preconditions=(
                Precondition(label="a regular file below workers.tmp_paths, no link, nobody has it open", holds=True),
                Precondition(label="size, time and inode are what they were", holds=True),
            ),
            undo="irreversible: what is deleted is gone; what is in the bucket is not touched",
        )  # fmt: skip

    def apply(self, plan: Plan) -> list[Effect]:
        """See :meth:`Kind.apply`."""
        return one_by_one(plan.draft.targets, self._deleted)

    def holds(self, plan: Plan, effects: Sequence[Effect]) -> tuple[bool | None, str]:
        """See :meth:`Kind.holds`."""
        done = {effect.target for effect in effects if effect.done}
        ours = [target for target in plan.draft.targets if target.name in done]
        left = [t.name for t in ours if _is_there(t.identity)]
        return (False, f"still there: {', '.join(left)}") if left else (True, f"{len(ours)} are gone")

    def _root(self, path: str) -> str:
        """The directory of ``workers.tmp_paths`` that the path lies below; empty = none."""
        parts = PurePosixPath(path).parts
        if not path.startswith("/") or ".." in parts or str(PurePosixPath(path)) != path or not path.isprintable():
            return ""
        roots = [root.rstrip("/") for root in self.settings.workers.tmp_paths if root.startswith("/")]
        return max((root for root in roots if root and path.startswith(f"{root}/")), key=len, default="")

    def _deleted(self, target: Target) -> Effect:
        identity = target.identity
        host, path = known_host(self.settings, identity["host"]), str(identity["path"])
        if not (root := self._root(path)):
            return Effect(target=target.name, done=False, said="workers.tmp_paths does not allow it any more")
        row = _seen(host, root, path, *(str(identity[name]) for name in IDENTITY))
        why = row["kept_by"]
        return Effect(target=target.name, done=not why, said=f"{why}: it was left alone" if why else "it is deleted")


def _seen(host: str, root: str, path: str, *was: str) -> dict[str, Any]:
    """The row of ``host_temporary_file``; with what the file was, it is deleted if it is that still."""
    rows = rows_of(host, on_host(host, LOOK, [PROC, root, path, *was]))
    if not rows:
        raise Refused(f"{host}: it told nothing about {path}")
    return rows[0]


def _written_since(row: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    try:
        then = datetime.fromisoformat(str(target.get("modified_at")))
    except ValueError:
        return "the run did not tell when it was written"
    return "" if abs(then.timestamp() - float(row["modified_at"])) <= SAME_SECONDS else "it was written since"


def _target(host: str, root: str, path: str, row: Mapping[str, Any]) -> Target:
    written = datetime.fromtimestamp(float(row["modified_at"]), UTC)
    return Target(
        name=f"{host}:{path}",
        identity={"host": host, "root": root, "path": path} | {name: row[name] for name in IDENTITY},
        shown=f"{path} on {host}: {row['bytes']} bytes, written at {written:%Y-%m-%d %H:%M:%S} UTC",
        change="it is deleted",
    )


def _is_there(identity: Mapping[str, Any]) -> bool:
    row = _seen(str(identity["host"]), str(identity["root"]), str(identity["path"]))
    return (row.get("device"), row.get("inode")) == (identity["device"], identity["inode"])

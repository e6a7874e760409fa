"""The forest of lock waits: who blocks whom, from the root down.

Works on the rows of the ``blockers`` reading: every waiter with the pids that block it, and the blockers themselves.
Pid 0 stands for a prepared transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STRONG_MODES = frozenset({"AccessExclusiveLock", "ExclusiveLock", "ShareRowExclusiveLock", "ShareLock"})
MIN_QUEUE = 3
"""So many waiters make a pile-up, or a queue behind an amplifier. Source: reference fault model, P02 and P02a."""
PREPARED = 0
MAX_AMPLIFIERS = 20
"""Only so many of the longest-waiting strong requests are tried as amplifiers: the queue forms behind the oldest."""

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """One root and everybody who waits for it, directly or behind others."""

    root: int
    row: Row
    waiters: frozenset[int]
    #: The waiting session whose strong request holds up others that the root itself does not block, if any.
    amplifier: Row | None = None
    #: How many waiters would be free without the amplifier.
    amplified: int = 0

    @property
    def kind(self) -> str:
        """Cause id of this kind of root: P02b prepared transaction, P02c anti-wraparound autovacuum, P02a, P02."""
        if self.root == PREPARED:
            return "P02b"
        if self.row.get("wraparound"):
            return "P02c"
        return "P02a" if self.amplifier is not None else "P02"


@dataclass(frozen=True)
class Forest:
    """All trees, the largest first; a waiter of several roots is counted with the largest."""

    trees: Sequence[Tree]
    rows: Mapping[int, Row]
    edges: Mapping[int, frozenset[int]]

    @property
    def waiters(self) -> frozenset[int]:
        return frozenset(self.edges)

    @property
    def sessions(self) -> frozenset[int]:
        """Pids of the piled-up sessions: waiters and roots of trees of :data:`MIN_QUEUE` and more."""
        return frozenset(p for t in self.trees if len(t.waiters) >= MIN_QUEUE for p in (*t.waiters, t.root) if p)

    def of_kind(self, kind: str) -> list[Tree]:
        """Trees of :data:`MIN_QUEUE` and more waiters whose root is of that kind."""
        return [t for t in self.trees if t.kind == kind and len(t.waiters) >= MIN_QUEUE]

    def waiting_on(self, pids: Iterable[int]) -> int:
        """How many sessions wait directly for one of these."""
        wanted = frozenset(pids)
        return sum(1 for blockers in self.edges.values() if blockers & wanted)

    def lines(self, limit: int = 200) -> list[tuple[int, Row]]:
        """The forest as (depth, row), each session once, in the order in which a tree is read."""
        found: list[tuple[int, Row]] = []
        seen: set[int] = set()

        def visit(pid: int, depth: int) -> None:
            if pid in seen or len(found) >= limit:
                return
            seen.add(pid)
            found.append((depth, self.rows[pid]))
            for waiter in sorted(w for w, blockers in self.edges.items() if pid in blockers):
                visit(waiter, depth + 1)

        for tree in self.trees:
            visit(tree.root, 0)
        return found


def forest(rows: Sequence[Row]) -> Forest:
    """The forest of the rows of a ``blockers`` reading."""
    by_pid = {int(row["pid"]): row for row in rows}
    edges = {
        pid: blockers
        for pid, row in by_pid.items()
        if (blockers := frozenset(int(b) for b in row["blocked_by"] if int(b) in by_pid and int(b) != pid))
    }
    roots = {b for blockers in edges.values() for b in blockers} - set(edges)
    behind = _behind(edges)
    reach = {root: _reachable([root], behind) for root in roots}
    taken: set[int] = set()
    trees = []
    for root in sorted(roots, key=lambda r: (-len(reach[r]), r)):
        waiters = frozenset(reach[root] - taken)
        taken |= waiters
        amplifier, amplified = _amplifier(roots, waiters, by_pid, behind)
        trees.append(Tree(root=root, row=by_pid[root], waiters=waiters, amplifier=amplifier, amplified=amplified))
    return Forest(trees=trees, rows=by_pid, edges=edges)


def _behind(edges: Mapping[int, frozenset[int]]) -> dict[int, set[int]]:
    """Blocker → those who wait for it."""
    behind: dict[int, set[int]] = {}
    for waiter, blockers in edges.items():
        for blocker in blockers:
            behind.setdefault(blocker, set()).add(waiter)
    return behind


def _reachable(roots: Iterable[int], behind: Mapping[int, set[int]], without: int | None = None) -> set[int]:
    """Waiters behind ``roots``, not passing through ``without``."""
    found: set[int] = set()
    frontier = set(roots)
    while frontier:
        frontier = {w for pid in frontier for w in behind.get(pid, ()) if w != without} - found
        found |= frontier
    return found


def _amplifier(
    roots: Iterable[int], waiters: frozenset[int], rows: Mapping[int, Row], behind: Mapping[int, set[int]]
) -> tuple[Row | None, int]:
    """The one waiter whose cancelling would free the most, when that is a queue and it asks for a strong table lock."""
    strong = [
        pid
        for pid in waiters
        if rows[pid].get("locktype") == "relation" and rows[pid].get("mode") in STRONG_MODES and pid in behind
    ]
    strong.sort(key=lambda pid: (-float(rows[pid].get("query_seconds") or 0), pid))
    best, most = None, MIN_QUEUE - 1
    for pid in strong[:MAX_AMPLIFIERS]:
        freed = len(waiters - _reachable(roots, behind, without=pid) - {pid})
        if freed > most:
            best, most = rows[pid], freed
    return best, most if best is not None else 0

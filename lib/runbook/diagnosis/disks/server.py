"""Causes of PostgreSQL's own space: slots, archiver, WAL as it should be, temporary files, tables (D02–D06).

Nothing in ``pg_wal`` is ever touched: a slot is dropped, an archiver is mended, and the server removes what it does not
need. A slot that nobody reads, or an archiver that fails, is a matter on any disk; how full the disk is says how soon.
"""

from __future__ import annotations

from typing import Any

from runbook.diagnosis.disks.database import dead_bytes
from runbook.diagnosis.disks.facts import Claim, Facts
from runbook.diagnosis.disks.filesystems import number
from runbook.diagnosis.disks.gates import OF_HALF, claim_gate, where
from runbook.diagnosis.disks.limits import MIB
from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.verdict import Cause
from runbook.result import WEAK

NOT_PLACED = "on which filesystem the server keeps its files is not known"
SMALL_BYTES = 256 * MIB
"""Temporary files that no disk of a server is short of."""


def _share(facts: Facts, claim: Claim) -> float:
    """Share of a matter that is one on any disk: of what is too much there, all of it where nothing is short.

    Half where nobody knows how full that disk is.
    """
    one = facts.of(claim.key)
    if one is None:
        return 0.5
    if not facts.is_short(one):
        return 1.0
    return facts.share(claim, abnormal=True)


def _elsewhere(facts: Facts, role: str) -> str:
    """The server's filesystem when it is none of those in question; empty when it is one, or nobody knows."""
    key = facts.database.place(role)
    return key[1] if key is not None and facts.in_question(key) is False else ""


def slot(facts: Facts) -> Cause:
    """D02: an inactive replication slot keeps WAL.

    Gate: a slot that nobody reads keeps ``slot_mb`` or more, on a filesystem in question. Clause: it is more than
    ``max_wal_size``, or it grows while we look, or it explains enough of a disk that is short. ``wal_status`` may say
    *reserved* all the same. Source: R5, D02.
    """
    bench, database = Bench("D02", facts.readings), facts.database
    worst = database.idle_slot
    retained = number(worst["retained_bytes"]) if worst else 0.0
    pace = database.slot_pace(str(worst["slot_name"])) if worst else 0.0
    claim = Claim(key=database.place("wal"), bytes=retained or 0.0, pace=pace)
    away = _elsewhere(facts, "wal")
    limit = number(database.wal.get("max_wal_size_bytes")) if database.wal else None
    beyond = limit is not None and (retained or 0.0) > limit
    grows = worst is not None and (pace > 0 or database.slot_grows(str(worst["slot_name"])))
    pins = beyond or grows or facts.matters(claim, abnormal=True)
    return Cause(
        id="D02",
        name="replication slot keeps WAL",
        applicable=database.configured,
        gate=bench.fact(
            "inactive", f"an inactive slot keeps WAL on {away}, which is not in question" if away else
            "an inactive replication slot keeps WAL",
            None if database.slots is None else worst is not None and not away,
            value=int(retained or 0) if worst else 0, unit="bytes", rests_on=("disk_slots",), otherwise="refutes"),
        clauses=(
            bench.fact("pins", "more than max_wal_size, or growing while we look, or enough of a disk that is short",
                       pins if pins or limit is not None else None, value=worst["slot_name"] if worst else None,
                       rests_on=("disk_slots", "disk_wal")),
        ),
        hints=(
            bench.fact("no_limit", "max_slot_wal_keep_size sets no limit",
                       None if database.wal is None else str(database.wal.get("max_slot_wal_keep_size")) == "-1",
                       rests_on=("disk_wal",), weight=WEAK),
        ),
        share=_share(facts, claim) if worst and not away else 0.0,
        details=_slot_details(facts, worst, claim) if worst else {},
    )  # fmt: skip


def _slot_details(facts: Facts, worst: Any, claim: Claim) -> dict[str, Any]:
    wal = facts.database.wal or {}
    others = [s["slot_name"] for s in facts.database.slots or []
              if s.get("active") is False and s["slot_name"] != worst["slot_name"]]  # fmt: skip
    return {
        "slot_name": worst["slot_name"], "slot_type": worst.get("slot_type"), "database": worst.get("database"),
        "retained_bytes": int(claim.bytes), "wal_status": worst.get("wal_status"),
        "inactive_since": worst.get("inactive_since"), "xmin_age": worst.get("xmin_age"),
        "catalog_xmin_age": worst.get("catalog_xmin_age"), "wal_bytes": wal.get("wal_bytes"),
        "max_slot_wal_keep_size": wal.get("max_slot_wal_keep_size"), "other_inactive_slots": others,
    } | {k: v for k, v in where(facts, claim).items() if k != "bytes"}  # fmt: skip


def archiver(facts: Facts) -> Cause:
    """D03: the archiver fails, and segments wait for it.

    Gate: its last failure is younger than its last success. Clause: segments pile up. Source: R5, D03.
    """
    bench, database, wal = Bench("D03", facts.readings), facts.database, facts.database.wal
    away = _elsewhere(facts, "wal")
    ready = number(wal.get("wal_ready")) if wal else None
    claim = Claim(key=database.place("wal"), bytes=(number(wal.get("wal_bytes")) or 0.0) if wal else 0.0,
                  pace=database.wal_pace)  # fmt: skip
    failing = None if wal is None else wal.get("archiver_failing") is True and not away
    return Cause(
        id="D03",
        name="WAL archiver fails",
        applicable=database.configured,
        gate=bench.fact("failing", "the last failure of the archiver is younger than its last success", failing,
                        value=wal.get("last_failed_wal") if wal and failing else None, rests_on=("disk_wal",),
                        otherwise="refutes"),
        clauses=(
            bench.weigh("waiting", "segments that wait to be archived", ready,
                        at_least=facts.limits.ready_segments, rests_on=("disk_wal",)),
        ),
        share=_share(facts, claim) if failing else 0.0,
        details={"last_failed_wal": wal.get("last_failed_wal"), "last_failed_time": wal.get("last_failed_time"),
                 "last_archived_time": wal.get("last_archived_time"), "failed_count": wal.get("failed_count"),
                 "wal_ready": ready, "wal_ready_before": database.ready_before} | where(facts, claim)
        if failing and wal else {},
    )  # fmt: skip


def ordinary_wal(facts: Facts) -> Cause:
    """D04: the WAL is as large as its settings allow, and the disk is too small for that.

    Gate: it explains enough of a filesystem that is short. Clauses: not more than max_wal_size and wal_keep_size, no
    slot keeps it, the archiver does not fail. Source: R5, D04.
    """
    bench, database, wal = Bench("D04", facts.readings), facts.database, facts.database.wal
    size, usual = number(wal.get("wal_bytes")) if wal else None, database.usual_wal_bytes
    claim = Claim(key=database.place("wal"), bytes=size or 0.0)
    placed = facts.of(claim.key) is not None and facts.in_question(claim.key) is True
    kept = None if database.slots is None or wal is None else not (
        database.idle_slot is not None or wal.get("archiver_failing") is True)  # fmt: skip
    return Cause(
        id="D04",
        name="WAL as large as its settings allow",
        applicable=database.configured,
        gate=claim_gate(facts, bench, f"{OF_HALF} that is WAL", claim if placed else None, abnormal=False,
                        known=wal is not None and claim.key is not None, rests_on=("disk_wal", "database_files"),
                        reason=NOT_PLACED if wal is not None and claim.key is None else ""),
        clauses=(
            bench.fact("usual", "not more than max_wal_size and wal_keep_size",
                       None if size is None or usual is None else size <= 1.1 * usual, value=size, unit="bytes",
                       rests_on=("disk_wal",)),
            bench.fact("free", "no slot keeps it, and the archiver does not fail", kept,
                       rests_on=("disk_slots", "disk_wal"), otherwise="refutes"),
        ),
        share=facts.share(claim, abnormal=False) if placed else 0.0,
        details={"wal_bytes": size, "usual_wal_bytes": usual} | where(facts, claim) if placed else {},
    )  # fmt: skip


def spill(facts: Facts) -> Cause:
    """D05: sorts and hashes of a query spill to temporary files.

    Gate: they explain enough of a filesystem that is short, or fill one. Clause: the session that writes most of them
    is there. Source: R5, D05.
    """
    bench, database = Bench("D05", facts.readings), facts.database
    spills = database.spills
    total = sum(number(s.get("bytes")) or 0.0 for s in spills or [])
    claim = Claim(key=database.place("spill"), bytes=total,
                  pace=sum(database.spill_pace(s.get("pid")) for s in spills or []))  # fmt: skip
    known = spills is not None and (claim.key is not None or total < SMALL_BYTES)
    placed = facts.of(claim.key) is not None and facts.in_question(claim.key) is True
    worst = max(spills or [], key=lambda s: number(s.get("bytes")) or 0.0, default=None)
    return Cause(
        id="D05",
        name="temporary files of queries",
        applicable=database.configured,
        gate=claim_gate(facts, bench, "share of the growth, or of what is too much, that queries spilled",
                        claim if placed else None, abnormal=True, known=known,
                        rests_on=("disk_spills", "database_files"), reason="" if known else NOT_PLACED
                        if spills is not None else ""),
        clauses=(
            bench.fact("session", "the session that spills is there",
                       None if spills is None else worst is not None and worst.get("state") is not None,
                       value=worst.get("pid") if worst else None, rests_on=("disk_spills",)),
        ),
        share=facts.share(claim, abnormal=True) if placed else 0.0,
        details={key: worst.get(key) for key in ("pid", "application_name", "role", "database", "state",
                 "query_seconds", "query_id", "query", "backend_start")} | where(facts, claim)
        if worst and total else {},
    )  # fmt: skip


def tables(facts: Facts) -> Cause:
    """D06: a table grows, or is bloated with dead rows that vacuum may not remove.

    Gate: the growth of a database, or dead rows, explain enough of its filesystem. Clause: the relation is known. A
    large table that stands still is no cause. ``relpages`` is 0 until a first VACUUM, so sizes are the files' own.
    Source: R5, D06.
    """
    bench, database = Bench("D06", facts.readings), facts.database
    grows, worn = database.fastest, database.bloated
    growth = Claim(key=database.place("data"), pace=grows[1] if grows else 0.0)
    bloat = Claim(key=database.place("data"), bytes=dead_bytes(worn) if worn else 0.0)
    claim = facts.best((growth, bloat), abnormal=True)
    placed = claim is not None and facts.of(claim.key) is not None and facts.in_question(claim.key) is True
    kind = "bloat" if claim is bloat and worn else "growth"
    relation = worn if kind == "bloat" else database.growing_relation[0] if database.growing_relation else None
    known = database.databases is not None and database.relations is not None and database.looked_twice
    return Cause(
        id="D06",
        name="a table is bloated" if kind == "bloat" and placed and bloat.bytes else "a table grows",
        applicable=database.configured,
        gate=claim_gate(facts, bench, "share of the growth, or of what is too much, that is a database's",
                        claim if placed else None, abnormal=True, known=known and growth.key is not None,
                        rests_on=("disk_databases", "disk_relations", "database_files"),
                        reason=NOT_PLACED if known and growth.key is None else ""),
        clauses=(
            bench.fact("relation", "the relation is known",
                       None if database.relations is None else relation is not None,
                       value=relation["relation"] if relation else None, rests_on=("disk_relations",)),
        ),
        share=facts.share(claim, abnormal=True) if placed and claim else 0.0,
        details=_table_details(facts, claim, kind, relation)
        if placed and claim and (claim.bytes or claim.pace) else {},
    )  # fmt: skip


def _table_details(facts: Facts, claim: Claim, kind: str, relation: Any) -> dict[str, Any]:
    grows = facts.database.fastest
    told: dict[str, Any] = {"kind": kind, "database": grows[0] if grows and kind == "growth" else None}
    if relation is not None:
        told |= {"relation": relation["relation"], "relation_bytes": relation.get("bytes"),
                 "dead_percent": relation.get("dead_percent"),
                 "last_autovacuum": relation.get("last_autovacuum")}  # fmt: skip
    if kind == "bloat":
        told["held_back_by"] = facts.readings.row("horizon")
    return told | where(facts, claim)

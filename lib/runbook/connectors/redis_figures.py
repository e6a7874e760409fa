"""Figures of one Redis for those who do not ask about the connection: its memory, and how much it works."""

from __future__ import annotations

from datetime import datetime

from runbook.connectors.base import Fetched
from runbook.connectors.redis_session import Session, answered

MEMORY = (
    "process_id", "used_memory", "used_memory_rss", "used_memory_peak", "used_memory_dataset", "maxmemory",
    "maxmemory_policy", "total_system_memory", "mem_fragmentation_ratio", "allocator_frag_bytes", "mem_clients_normal",
    "mem_clients_slaves", "mem_replication_backlog", "mem_aof_buffer", "rdb_bgsave_in_progress",
    "aof_rewrite_in_progress", "current_cow_size", "evicted_keys",
)  # fmt: skip
_LOAD_SECTIONS = ("stats", "commandstats", "cpu")


def memory(session: Session) -> Fetched:
    """What it uses and for what, in bytes, and the limits; what it does not tell is ``None``."""
    answer = answered(session.batch([("INFO",)])[0])
    return Fetched(value={key: answer.get(key) for key in MEMORY})


def load(session: Session, now: datetime) -> Fetched:
    """Running totals of what it worked and of hits and misses; two of them give a rate."""
    stats, commands, cpu = (answered(a) for a in session.batch([("INFO", s) for s in _LOAD_SECTIONS]))
    counted = {k.removeprefix("cmdstat_"): v for k, v in commands.items() if isinstance(v, dict) and "usec" in v}
    busiest = max(counted, key=lambda name: int(counted[name]["usec"]), default=None)
    return Fetched(
        value={
            "at": now.isoformat(timespec="milliseconds"),
            "commands": stats.get("total_commands_processed"),
            "hits": stats.get("keyspace_hits"),
            "misses": stats.get("keyspace_misses"),
            "busy_ms": round(sum(int(v["usec"]) for v in counted.values()) / 1000, 3) if counted else None,
            "cpu_seconds": cpu.get("used_cpu_user"),
            "busiest_command": busiest,
        }
    )

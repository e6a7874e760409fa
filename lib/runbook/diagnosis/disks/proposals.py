"""What could be done, proposed: exact targets, what must hold, what to copy, how to undo it.

Nothing here acts, and nothing here ever touches ``pg_wal``: what lies there is the server's to remove. A file that a
process has open is emptied, not deleted: deleting it frees nothing. Source: reference fault model, sections 2 and R5.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from runbook.diagnosis.disks import words
from runbook.diagnosis.disks.facts import Facts
from runbook.diagnosis.disks.filesystems import number
from runbook.diagnosis.verdict import found
from runbook.result import Action, Precondition, Verdict

MAX_TARGETS = 10


def propose(verdicts: Sequence[Verdict], facts: Facts) -> list[Action]:
    """Actions for the causes found, in their order; consequences are not treated."""
    return [
        action
        for verdict in verdicts
        if found(verdict.tier) and verdict.role != "consequence"
        for proposer in PROPOSERS.get(verdict.cause, ())
        for action in proposer(verdict, facts)
    ]


def _action(cause: str, kind: str, title: str, by_hand: str, *, undo: str, needs: str | None = None,
            targets: Sequence[dict[str, Any]] = (), preconditions: Sequence[Precondition] = ()) -> Action:  # fmt: skip
    return Action(
        id=f"{cause}.{kind.split('.')[-1]}", kind=kind, title=title, cause=cause, targets=list(targets),
        preconditions=list(preconditions), by_hand=by_hand, undo=undo, needs=needs,
    )  # fmt: skip


def _logs(verdict: Verdict, facts: Facts) -> list[Action]:
    """Rotate; else empty the file in place. Only application logs that were seen by path."""
    files = [f for f in verdict.details.get("files") or [] if _may_be_emptied(f["path"])][:MAX_TARGETS]
    if not files:
        return []
    path = files[0]["path"]
    quoted = shlex.quote(path)
    pid = files[0].get("writer_pid")
    kept = f"cp --sparse=always {quoted} /elsewhere/   # what may be needed as evidence, to a disk that has room"
    return [
        _action(
            "D01", "logs.rotate", f"Rotate or empty {path} ({words.size(files[0]['bytes'])})",
            f"{kept}\nlogrotate --force /etc/logrotate.d/NAME   # where a rule of logrotate covers it\n"
            f": > {quoted}   # else: empty it in place; rm frees nothing while a process has it open",
            undo="irreversible: what was in the file is gone, unless it was copied before", needs="owner of the log",
            targets=[{"host": f["host"], "path": f["path"], "bytes": f["bytes"], "writer_pid": f["writer_pid"]}
                     for f in files],
            preconditions=(
                Precondition(label="the file is still the one that was seen (same path, not a link)", holds=None),
                Precondition(label="its lines are not needed, or copied elsewhere", holds=None),
            ),
        ),
        _action(
            "D01", "app.quieten", "Find out why it writes so much, and make it write less",
            (f"tail -n 50 {quoted}\ncut -c 1-80 {quoted} | tail -n 20000 | sort | uniq -c | sort -rn | head\n"
             + (f"ps -o pid,lstart,args -p {int(pid)}   # a debug level left on, a loop of errors?" if pid else "")),
            undo="put the previous log level back", needs="owner of the service",
            targets=[{"pid": pid, "command": files[0].get("writer_command")}] if pid else [],
        ),
    ]  # fmt: skip


def _may_be_emptied(path: str) -> bool:
    """Whether a path is a log and cannot be anything of a database's."""
    return words.kind(path) == "log" and "/pg_wal/" not in path and "/pg_xact/" not in path and path.startswith("/")


def _slot(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    name = str(details.get("slot_name"))
    literal = "'" + name.replace("'", "''") + "'"
    kept = words.size(number(details.get("retained_bytes")))
    return [
        _action(
            "D02", "replica.resume", f"Start what reads slot {name} again, if it is to come back",
            "# the replica, or the consumer of changes, that this slot belongs to: is it down, or gone for good?\n"
            f"SELECT slot_name, slot_type, active, restart_lsn FROM pg_replication_slots WHERE slot_name = {literal};",
            undo="nothing is changed", targets=[{"slot_name": name}],
        ),
        _action(
            "D02", "postgres.limit_slots", "Let slots keep no more WAL than the disk can bear",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';  -- a slot beyond it is lost: its replica is rebuilt\n"
            "SELECT pg_reload_conf();",
            undo="ALTER SYSTEM RESET max_slot_wal_keep_size; SELECT pg_reload_conf();",
            needs="superuser; never automatic", targets=[{"setting": "max_slot_wal_keep_size"}],
            preconditions=(Precondition(label="the replica may be lost and built anew", holds=None),),
        ),
        _action(
            "D02", "postgres.drop_slot", f"Drop slot {name}, which frees {kept}; its replica must be rebuilt",
            "-- 0 rows when it is in use by then\nSELECT pg_drop_replication_slot(slot_name)\n"
            "FROM pg_replication_slots "
            f"WHERE slot_name = {literal} AND NOT active;\nCHECKPOINT;",
            undo="irreversible: what reads this slot must be rebuilt from a new base backup or a new copy",
            needs="typed confirmation by the owner of the replica; never automatic",
            targets=[{"slot_name": name, "slot_type": details.get("slot_type"),
                      "retained_bytes": details.get("retained_bytes")}],
            preconditions=(
                Precondition(label="the slot is inactive", holds=True, value=details.get("inactive_since")),
                Precondition(label="nobody will read it again", holds=None),
            ),
        ),
    ]  # fmt: skip


def _archiver(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "D03", "postgres.mend_archiver", "Mend what archive_command needs: target, credentials, room",
            "SHOW archive_command; SHOW archive_library;   -- run it by hand on the oldest segment\n"
            "SELECT last_failed_wal, last_failed_time, last_archived_time FROM pg_stat_archiver;\n"
            "# the server's log says what the command answered. The server removes what is archived by itself: never\n"
            "# by hand, and never by a command that only claims success (a gap in the archive is for ever)",
            undo="nothing is changed", needs="owner of the backups",
            targets=[{"last_failed_wal": verdict.details.get("last_failed_wal")}],
        )
    ]  # fmt: skip


def _wal(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "D04", "postgres.lower_wal", "Give the WAL a larger disk, or lower max_wal_size",
            "SHOW max_wal_size; SHOW wal_keep_size;\n"
            "ALTER SYSTEM SET max_wal_size = '…'; SELECT pg_reload_conf();   -- more checkpoints, hence more writing",
            undo="ALTER SYSTEM RESET max_wal_size; SELECT pg_reload_conf();", needs="superuser; never automatic",
        )
    ]  # fmt: skip


def _spill(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    pid, start = details.get("pid"), details.get("backend_start")
    if pid is None or start is None:
        return []
    moment = "'" + str(start).replace("'", "''") + "'::timestamptz"
    return [
        _action(
            "D05", "postgres.cancel", f"Cancel the statement of pid {pid} that spills",
            f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity\nWHERE pid = {int(pid)} AND backend_start = {moment} "
            "AND state = 'active' AND backend_type = 'client backend';",
            undo="irreversible: the statement fails, and its client may run it again", needs="pg_signal_backend",
            targets=[{"pid": pid, "backend_start": start, "application_name": details.get("application_name")}],
            preconditions=(
                Precondition(label="the statement still runs", holds=None, value=details.get("query_seconds")),
                Precondition(label="it is no backup or dump", holds=not _is_backup(details),
                             value=details.get("application_name")),
            ),
        ),
        _action(
            "D05", "postgres.limit_spill", "Limit what a session may spill",
            "ALTER ROLE … SET temp_file_limit = '10GB';   -- superusers set it; a query beyond it fails with 53400",
            undo="ALTER ROLE … RESET temp_file_limit;", needs="superuser; never automatic",
        ),
    ]  # fmt: skip


def _is_backup(details: Any) -> bool:
    name = str(details.get("application_name") or "")
    return name.startswith(("pg_dump", "pg_basebackup", "pgbackrest", "barman", "wal-g"))


def _table(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    relation = details.get("relation")
    if details.get("kind") == "bloat":
        return [
            _action(
                "D06", "postgres.vacuum", f"End what holds vacuum back, then let {relation} be vacuumed",
                f"-- held back by: {details.get('held_back_by')}\n"
                "-- VACUUM makes the room usable again and gives none back; VACUUM FULL and pg_repack do, and need as\n"
                f"-- much room again as the table takes, which is not there now\nVACUUM (VERBOSE) {relation};",
                undo="nothing is lost", needs="owner of the table", targets=[{"relation": relation}],
            )
        ]  # fmt: skip
    return [
        _action(
            "D06", "app.find_writer", f"Find what writes to {relation}, and whether it should",
            "SELECT relname, n_tup_ins, n_tup_upd FROM pg_stat_user_tables ORDER BY n_tup_ins DESC LIMIT 10;\n"
            "# a table of events or sessions that nobody expires? partition it by time and drop old partitions",
            undo="nothing is changed", targets=[{"relation": relation, "database": details.get("database")}],
        )
    ]  # fmt: skip


def _deleted(verdict: Verdict, facts: Facts) -> list[Action]:
    files = (verdict.details.get("files") or [])[:MAX_TARGETS]
    first = files[0]
    return [
        _action(
            "D07", "process.restart", f"Restart or reload what holds {first['path']} ({words.size(first['bytes'])})",
            f"ls -l /proc/{int(first['pid'])}/fd | grep deleted   # still the same file?\n"
            "# most daemons open their logs anew on reload (SIGHUP, SIGUSR1, logrotate's postrotate); else restart it\n"
            "# where neither may be: which descriptor it is, then  : > /proc/PID/fd/N  empties a log in place",
            undo="irreversible: the content of a deleted file goes with its last holder", needs="owner of the service",
            targets=files,
            preconditions=(
                Precondition(label="the process is no database server (restart that by its own means)",
                             holds=not str(first.get("command") or "").startswith(("postgres", "redis-server"))),
                Precondition(label="nobody needs the content", holds=None),
            ),
        )
    ]  # fmt: skip


def _inodes(verdict: Verdict, facts: Facts) -> list[Action]:
    mount = shlex.quote(str(verdict.details.get("mount")))
    many = verdict.details.get("directories") or []
    return [
        _action(
            "D08", "files.fewer", "Find the directory with the most files, and what makes them",
            f"find {mount} -xdev | sed 's|/[^/]*$||' | sort | uniq -c | sort -rn | head\n"
            "# sessions, mail queues, thumbnails? delete by age and pattern once their owner agrees",
            undo="irreversible: what is deleted is gone", needs="owner of the files",
            targets=[{"path": d["path"], "files": d["files"]} for d in many[:MAX_TARGETS]],
        )
    ]  # fmt: skip


def _left(verdict: Verdict, facts: Facts) -> list[Action]:
    """Only files in configured temporary directories, old and closed; each is checked again when it goes."""
    hours = facts.limits.temp_age_hours
    paths = [str(p) for p in verdict.details.get("paths") or []][:MAX_TARGETS]
    tmp = facts.files.configured.tmp
    allowed = [p for p in paths if any(words.beneath(p, t) for t in tmp)]
    if not allowed:
        return [
            _action(
                "D09", "files.ask_owner", "Ask whose these are: they lie in no directory that workers.tmp_paths allows",
                "\n".join(f"ls -l {shlex.quote(p)}" for p in paths), undo="nothing is changed", needs="their owner",
                targets=[{"host": verdict.details.get("host"), "path": p} for p in paths],
            )
        ]  # fmt: skip
    commands = "\n".join(
        f"[ ! -L {q} ] && ! fuser -s {q} && find {q} -maxdepth 0 -xdev -type f -mmin +{int(hours * 60)} -delete"
        for q in map(shlex.quote, allowed)
    )
    return [
        _action(
            "D09", "files.delete_temporary", f"Delete {len(allowed)} temporary files that were left over",
            f"# on {verdict.details.get('host')}; each is looked at again: no link, no holder, still old\n{commands}",
            undo="irreversible; what is in the bucket is not touched", needs="owner of the workers",
            targets=[_temporary(facts, str(verdict.details.get("host")), p) for p in allowed],
            preconditions=(
                Precondition(label="below a configured temporary directory", holds=True, value=list(tmp)),
                Precondition(label=f"older than {hours:g} h, and nobody has them open", holds=True),
                Precondition(label="their jobs have ended", holds=None if "D09.ended" not in verdict.because else True),
            ),
        )
    ]  # fmt: skip


def _temporary(facts: Facts, host: str, path: str) -> dict[str, Any]:
    """A file as a target: its size on the disk, and when it was written, by its age at the moment of the look."""
    target: dict[str, Any] = {"host": host, "path": path}
    file = next((f for f in facts.files.all if (f.host, f.path) == (host, path)), None)
    measured = facts.readings.measured_at(("old_files",))
    if file is None or file.age_hours is None or not measured:
        return target
    written = datetime.fromisoformat(measured) - timedelta(hours=file.age_hours)
    return target | {"bytes": int(file.bytes), "modified_at": written.isoformat(timespec="seconds")}


def _images(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "D10", "host.prune", "Remove images that nothing runs, old journal, old dumps",
            "docker system df; docker image prune   # only dangling ones; -a also what a restart has to pull again\n"
            "journalctl --disk-usage; journalctl --vacuum-size=1G\ncoredumpctl list; ls -l /var/lib/systemd/coredump",
            undo="irreversible: images are pulled again, the journal is gone", needs="root on the host",
            targets=[dict(p) for p in (verdict.details.get("places") or [])[:MAX_TARGETS]],
        )
    ]  # fmt: skip


def _reserve(verdict: Verdict, facts: Facts) -> list[Action]:
    device = shlex.quote(str(verdict.details.get("device")))
    return [
        _action(
            "D11", "host.lower_reserve", "Lower the reserve for a while, on a disk that holds no system files",
            f"tune2fs -l {device} | grep -i reserved\ntune2fs -m 1 {device}",
            undo=f"tune2fs -m 5 {device}, or what it was before", needs="root on the host",
            targets=[{"device": verdict.details.get("device"), "mount": verdict.details.get("mount")}],
        )
    ]  # fmt: skip


def _hidden(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    mount, path = shlex.quote(str(details.get("mount"))), shlex.quote(str(details.get("path")))
    return [
        _action(
            "D12", "host.look_below", f"Look at what lies below {details.get('path')}, and move it away",
            "unshare -m --propagation private sh -c 'mount --bind \"$1\" /mnt && du -xsh \"/mnt/${2#\"$1\"}\"' sh "
            f"{mount} {path}",
            undo="nothing is changed by looking", needs="root on the host",
            targets=[{"host": details.get("host"), "mount": details.get("mount"), "path": details.get("path")}],
        )
    ]  # fmt: skip


def _writable(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    return [
        _action(
            "D13", "host.remount", f"Find out why {details.get('mount')} is read-only, then mount it for writing",
            "dmesg | tail -n 50   # an I/O error? then the disk is ill: back up, replace, fsck while not mounted\n"
            f"mount -o remount,rw {shlex.quote(str(details.get('mount')))}   # only when the kernel saw no error",
            undo=f"mount -o remount,ro {shlex.quote(str(details.get('mount')))}", needs="root on the host",
            targets=[{"host": details.get("host"), "mount": details.get("mount"), "device": details.get("device")}],
            preconditions=(Precondition(label="the kernel's log shows no error of this disk", holds=None),),
        )
    ]  # fmt: skip


def _volume(verdict: Verdict, facts: Facts) -> list[Action]:
    return [
        _action(
            "D14", "host.extend_volume", "Extend the pool, end the snapshot, or raise the quota",
            "lvs -a -o +data_percent,metadata_percent; repquota -s -a\nlvextend -L +10G VG/POOL   # if there is room",
            undo="irreversible: a pool does not shrink, a snapshot that is removed is gone", needs="root on the host",
            targets=[{"volume": verdict.details.get("volume")}],
        )
    ]  # fmt: skip


def _redis(verdict: Verdict, facts: Facts) -> list[Action]:
    details = verdict.details
    if details.get("left_over"):
        text = f"# no save is in progress and nobody has it open:\nls -l {shlex.quote(str(details.get('path')))}; " \
               f"fuser -v {shlex.quote(str(details.get('path')))}"  # fmt: skip
        return [_action("D15", "redis.left_over", "Remove what a save left behind, once its owner agrees", text,
                        undo="irreversible", needs="owner of Redis",
                        targets=[{"path": details.get("path")}])]  # fmt: skip
    return [
        _action(
            "D15", "redis.wait", "Let the save end, and give Redis room for its data twice",
            "redis-cli INFO persistence   # rdb_bgsave_in_progress, rdb_current_bgsave_time_sec\n"
            "# the old file is replaced when it ends. Make room elsewhere; let the child live",
            undo="nothing is changed", targets=[{"path": details.get("path"), "pid": details.get("writer_pid")}],
        )
    ]  # fmt: skip


PROPOSERS: dict[str, tuple[Callable[[Verdict, Facts], list[Action]], ...]] = {
    "D01": (_logs,), "D02": (_slot,), "D03": (_archiver,), "D04": (_wal,), "D05": (_spill,), "D06": (_table,),
    "D07": (_deleted,), "D08": (_inodes,), "D09": (_left,), "D10": (_images,), "D11": (_reserve,), "D12": (_hidden,),
    "D13": (_writable,), "D14": (_volume,), "D15": (_redis,),
}  # fmt: skip

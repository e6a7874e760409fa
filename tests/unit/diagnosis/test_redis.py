from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbook.diagnosis import redis
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.redis import diagnose, finding, ladder, prevention
from runbook.diagnosis.redis.words import kind
from runbook.result import TIERS, Findings, Reading, Verdict
from tests.unit.diagnosis.cache import Cache
from tests.unit.diagnosis.server import reading

FAILED = ("unreachable", "auth_failed", "permission_denied", "rate_limited", "timeout", "stale")
LEAKED = {"name": "report-worker", "host": "10.0.0.9", "connections": 90, "idle_median_seconds": 4000,
          "longest_idle": [{"id": 44, "addr": "10.0.0.9:40112", "idle_seconds": 8000}]}  # fmt: skip


def found(findings: Findings) -> list[str]:
    return [v.cause for v in findings.verdict if v.tier in ("confirmed", "probable") and v.cause != "K00"]


def verdict(findings: Findings, cause: str) -> Verdict:
    return next(v for v in findings.verdict if v.cause == cause)


def down() -> Cache:
    return Cache().refused("tcp", "ECONNREFUSED")


def no_name() -> Cache:
    return Cache().refused("name", "DNS")


def no_answer() -> Cache:
    return Cache().refused("tcp", "ETIMEDOUT")


def wrong_password() -> Cache:
    return Cache().refused("auth", "WRONGPASS")


def application_has_the_old_password() -> Cache:
    return Cache(
        check="fail", log={"ReplyError: WRONGPASS invalid username-password pair": 20}, errors={"WRONGPASS": 20}
    )


def no_permission() -> Cache:
    return Cache(log={"ReplyError: NOPERM this user has no permissions to run the 'incr' command": 12},
                 errors={"NOPERM": 12},
                 refusals=[{"reason": "command", "object": "incr", "user": "api", "count": 12,
                            "age_seconds": 3}])  # fmt: skip


def no_slot() -> Cache:
    return Cache().refused("greeting", "MAXCLIENTS")


def some_rejected() -> Cache:
    return Cache(info={"connected_clients": 99, "maxclients": 100}, grows={"rejected_connections": 8},
                 log={"ReplyError: ERR max number of clients reached": 8},
                 clients=[{"connections": 99}])  # fmt: skip


def leaks() -> Cache:
    return Cache(info={"connected_clients": 97, "maxclients": 100}, clients=[LEAKED, {"connections": 7}],
                 config={"maxclients": "100"})  # fmt: skip


def memory_full() -> Cache:
    return Cache(info={"maxmemory": 40_000_000, "used_memory": 40_000_200}, errors={"OOM": 30},
                 log={"ReplyError: OOM command not allowed when used memory > 'maxmemory'.": 30})  # fmt: skip


def memory_at_the_brim() -> Cache:
    return Cache(info={"maxmemory": 40_000_000, "used_memory": 39_990_000}, errors={"OOM": 30},
                 log={"ReplyError: OOM command not allowed when used memory > 'maxmemory'.": 30})  # fmt: skip


def misconf() -> Cache:
    return Cache(info={"rdb_last_bgsave_status": "err"}, errors={"MISCONF": 9}, check="fail",
                 pings=("MISCONF",) * 3, stops=("ping", "MISCONF"))  # fmt: skip


def misconf_of_a_server_that_answers_ping() -> Cache:
    return Cache(info={"rdb_last_bgsave_status": "err"}, errors={"MISCONF": 9})


def replica() -> Cache:
    return Cache(info={"role": "slave", "master_host": "10.0.0.5"}, errors={"READONLY": 14},
                 log={"ReadOnlyError: You can't write against a read only replica.": 14})  # fmt: skip


def orphaned_replica() -> Cache:
    return Cache().refused("ping", "MASTERDOWN")


def loads() -> Cache:
    return Cache(info={"loading": True, "loading_eta_seconds": 40}, check="fail", pings=("LOADING",) * 3,
                 stops=("ping", "LOADING"))  # fmt: skip


def script() -> Cache:
    return Cache().refused("ping", "BUSY")


def stopped() -> Cache:
    cache = Cache().refused("greeting", "SILENT")
    cache.host = [{"pid": 612, "state": "Tsl", "listening": "yes"}]
    return cache


def blocked() -> Cache:
    return Cache(slow=[{"command": "KEYS", "seconds": 4.2, "ago_seconds": 20, "at": "2026-03-01T02:59:40Z",
                        "client": "10.0.0.9"}],
                 log={"[ioredis] Error: Command timed out": 30})  # fmt: skip


def paused() -> Cache:
    return Cache().refused("auth", "PAUSED", ping="SILENT")


def writes_paused() -> Cache:
    return Cache(clients=[{"connections": 12, "blocked": 9, "held_back": 9, "held_back_seconds": 7}],
                 log={"[ioredis] Error: Command timed out": 30})  # fmt: skip


def tls() -> Cache:
    return Cache().refused("greeting", "TLS", ping="ECONNRESET")


def plain() -> Cache:
    return Cache().refused("tls", "PLAIN", ping="ETIMEDOUT")


def certificate() -> Cache:
    return Cache().refused("tls", "TLS10")


def protected() -> Cache:
    return Cache().refused("greeting", "DENIED")


def evicts_jobs() -> Cache:
    return Cache(info={"maxmemory": 40_000_000, "maxmemory_policy": "allkeys-lru", "used_memory": 39_900_000},
                 grows={"evicted_keys": 300}, queue={"exists": True})  # fmt: skip


def too_few_replicas() -> Cache:
    return Cache(info={"min_slaves_good_slaves": 0, "connected_slaves": 0}, config={"min-replicas-to-write": "1"},
                 errors={"NOREPLICAS": 8})  # fmt: skip


def cluster_down() -> Cache:
    return Cache(info={"cluster_enabled": 1}, cluster={"enabled": True, "state": "fail"}, errors={"CLUSTERDOWN": 4})


def not_a_cluster_client() -> Cache:
    return Cache(info={"cluster_enabled": 1}, cluster={"enabled": True, "state": "ok"}, errors={"MOVED": 40},
                 log={"ReplyError: MOVED 5798 10.0.0.7:6379": 40})  # fmt: skip


def slow_fork() -> Cache:
    return Cache(info={"latest_fork_usec": 2_400_000, "rdb_bgsave_in_progress": 1}, ping_ms=1800.0)


def lost_client() -> Cache:
    return Cache(check="fail", log={"MaxRetriesPerRequestError: redis: Reached the max retries per request": 40},
                 clients=[{"name": "bull:dHJhbnNjb2Rl", "connections": 1}])  # fmt: skip


def buffers() -> Cache:
    return Cache(server_log=[{"kind": "output_buffer", "count": 4, "ago_seconds": 9,
                              "sample": "closed ASAP for overcoming of output buffer limits"}])  # fmt: skip


CACHES: dict[str, tuple[Callable[[], Cache], list[str]]] = {
    maker.__name__: (maker, causes)
    for maker, causes in (
        (down, ["K01"]), (no_name, ["K02"]), (no_answer, ["K02"]), (wrong_password, ["K03"]),
        (application_has_the_old_password, ["K03"]), (no_permission, ["K04"]), (no_slot, ["K05"]),
        (some_rejected, ["K05"]), (leaks, ["K06"]), (memory_full, ["K07"]), (memory_at_the_brim, ["K07"]),
        (misconf, ["K08"]), (misconf_of_a_server_that_answers_ping, ["K08"]), (replica, ["K09"]),
        (orphaned_replica, ["K09"]), (loads, ["K10"]), (script, ["K11"]), (stopped, ["K12"]), (blocked, ["K12"]),
        (paused, ["K13"]), (writes_paused, ["K13"]), (tls, ["K14"]), (plain, ["K14"]), (certificate, ["K14"]),
        (protected, ["K15"]), (evicts_jobs, ["K16"]), (too_few_replicas, ["K17"]), (cluster_down, ["K18"]),
        (not_a_cluster_client, ["K18"]), (slow_fork, ["K19"]), (lost_client, ["K20"]), (buffers, ["K21"]),
    )
}  # fmt: skip


@pytest.mark.parametrize("name", CACHES)
def test_each_fault_gives_its_cause_and_no_other(name: str) -> None:
    make, causes = CACHES[name]
    findings = diagnose(make().readings(), {})
    assert (found(findings), findings.outcome) == (causes, "diagnosed")
    assert verdict(findings, causes[0]).tier == "confirmed"


def test_a_redis_that_serves_is_healthy() -> None:
    findings = diagnose(Cache().readings(), {})
    assert (findings.outcome, found(findings)) == ("healthy", [])
    assert verdict(findings, "K00").tier == "confirmed"
    assert findings.actions == () or list(findings.actions) == []


MUST_NOT: dict[str, Cache] = {
    "a health probe without a password is no login refused": Cache(errors={"NOAUTH": 30}, before={"NOAUTH": 9000}),
    "an exporter without rights is no missing right": Cache(
        errors={"NOPERM": 30},
        refusals=[{"reason": "command", "object": "config|get", "user": "exporter", "count": 30, "age_seconds": 1}],
    ),
    "what our own look is refused is ours": Cache(errors={"NOPERM": 9}, own_errors={"NOPERM": 9}),
    "errors of last month are not of now": Cache(before={"OOM": 700, "MISCONF": 3, "READONLY": 12}),
    "clients rejected last month are not rejected now": Cache(info={"rejected_connections": 400}),
    "a cache may evict": Cache(info={"maxmemory": 10**9, "maxmemory_policy": "allkeys-lru"},
                                grows={"evicted_keys": 900}),
    "a replica that is only read serves": Cache(info={"role": "slave", "master_link_status": "up"}),
    "subscribers hold their connections by nature": Cache(
        clients=[LEAKED | {"subscribers": 90}], info={"connected_clients": 97}
    ),
    "workers that wait for a job are no leak": Cache(clients=[LEAKED | {"blocked": 90}],
                                                     info={"connected_clients": 97}),
    "a pool that idles in plenty of room is no leak": Cache(clients=[LEAKED], info={"connected_clients": 100}),
    "a failed snapshot where none is configured refuses nothing": Cache(
        info={"rdb_last_bgsave_status": "err"}, config={"save": ""}
    ),
    "a failed snapshot that may be ignored refuses nothing": Cache(
        info={"rdb_last_bgsave_status": "err"}, config={"stop-writes-on-bgsave-error": "no"}
    ),
    "a slow command of an hour ago is over": Cache(
        slow=[{"command": "KEYS", "seconds": 4.2, "ago_seconds": 3600, "at": "2026-03-01T02:00:00Z"}]
    ),
    "one late answer may be our own machine": Cache(late=("LATE", 2600.0)),
    "memory near its limit still takes writes": Cache(info={"maxmemory": 40_000_000, "used_memory": 39_000_000}),
    "slots that move are no cluster that is down": Cache(
        errors={"MOVED": 5}, info={"cluster_enabled": 1}, cluster={"enabled": True, "state": "ok"}
    ),
    "a fork of last night is over": Cache(info={"latest_fork_usec": 2_400_000}),
    "lines about the database are not Redis's": Cache(log={"Error: connect ECONNREFUSED 10.0.0.4:5432": 50}),
    "a buffer that ran over yesterday is over": Cache(
        server_log=[{"kind": "output_buffer", "count": 4, "ago_seconds": 86_400, "sample": "output buffer limits"}]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUST_NOT)
def test_nothing_is_found_where(name: str) -> None:
    assert found(diagnose(MUST_NOT[name].readings(), {})) == []


def test_of_a_replica_that_nobody_was_seen_to_write_to_nothing_is_claimed() -> None:
    findings = diagnose(MUST_NOT["a replica that is only read serves"].readings(), {})
    assert findings.outcome == "undetermined"
    assert "whether the application only reads" in next(e.reason for e in findings.evidence if e.id == "K09.written")


@pytest.mark.parametrize(
    "cache",
    [
        Cache(info={"role": "slave", "master_link_status": "down"}),
        Cache(info={"role": "slave", "master_link_status": "up"}, queue={"exists": True}),
    ],
    ids=["it lost its master", "a queue is in it"],
)
def test_a_replica_is_at_fault_without_a_refused_write_where(cache: Cache) -> None:
    assert found(diagnose(cache.readings(), {})) == ["K09"]


def test_a_server_that_is_fine_and_an_application_that_is_not_is_no_redis_that_is_down() -> None:
    findings = diagnose(lost_client().readings(), {})
    assert verdict(findings, "K01").tier == "excluded"


def test_what_only_we_are_refused_is_never_confirmed_while_the_application_is_well() -> None:
    for cache in (down(), no_name(), wrong_password(), tls(), protected()):
        cache.check = "pass"
        [first] = [v for v in diagnose(cache.readings(), {}).verdict if v.tier in ("confirmed", "probable")]
        assert first.tier == "probable"
        assert first.details.get("application", "is well so far") == "is well so far"


def test_what_the_server_says_to_everybody_is_confirmed_although_older_connections_still_work() -> None:
    for cache in (no_slot(), misconf(), loads(), script(), paused()):
        cache.check = "pass"
        [first] = [v for v in diagnose(cache.readings(), {}).verdict if v.tier in ("confirmed", "probable")]
        assert first.tier == "confirmed"


def test_a_pause_is_told_from_a_server_that_hangs() -> None:
    assert verdict(diagnose(paused().readings(), {}), "K12").tier == "excluded"
    assert verdict(diagnose(stopped().readings(), {}), "K13").tier == "excluded"


def test_silence_that_only_the_client_library_met_is_unknown() -> None:
    findings = diagnose([reading("redis_ping", None, source="redis", state="timeout", code="SILENT")], {})
    assert found(findings) == []
    assert findings.outcome == "undetermined"
    assert {verdict(findings, cause).tier for cause in ("K12", "K13")} == {"undetermined"}


def test_a_leak_behind_a_closed_door_is_undetermined() -> None:
    findings = diagnose(no_slot().readings(), {})
    assert verdict(findings, "K06").tier == "undetermined"
    assert "K06" in {cause for item in findings.not_checked for cause in item.blocks}


def test_a_leak_explains_the_slots_that_are_gone() -> None:
    cache = leaks()
    cache.grows = {"rejected_connections": 5}
    findings = diagnose(cache.readings(), {})
    assert found(findings)[0] == "K06"
    assert verdict(findings, "K05").consequence_of == "K06"


def test_two_faults_are_both_named() -> None:
    cache = leaks()
    cache.info |= {"maxmemory": 40_000_000, "used_memory": 40_000_200}
    assert set(found(diagnose(cache.readings(), {}))) == {"K06", "K07"}


def test_one_look_cannot_tell_what_is_evicted_now() -> None:
    cache = evicts_jobs()
    cache.looks, cache.pings = 1, ("",)
    cache.info["evicted_keys"] = 300
    assert verdict(diagnose(cache.readings(), {}), "K16").tier == "undetermined"


def test_a_counter_that_began_anew_is_counted_from_its_restart() -> None:
    looks = [Cache(before={"OOM": 500}, looks=1, pings=("",)), Cache(before={"OOM": 4}, looks=1, pings=("",))]
    taken = [r for cache in looks for r in cache.readings() if r.name == "redis_info"]
    taken[1] = replace(taken[1], value=taken[1].value | {"uptime_seconds": 3})
    facts = redis.Facts(Readings(taken), redis.Limits())
    assert facts.counted("OOM") == 4


def test_before_6_2_the_server_counts_nothing_and_that_is_not_none() -> None:
    cache = Cache(info={"version": "5.0.7"})
    assert diagnose(cache.readings(), {}).outcome == "healthy"
    assert redis.Facts(Readings(cache.readings()), redis.Limits()).counted("OOM") is None


@pytest.mark.parametrize("name", CACHES)
def test_every_found_cause_has_an_action_that_is_safe(name: str) -> None:
    findings = diagnose(CACHES[name][0]().readings(), {})
    assert [a.cause for a in findings.actions]
    for action in findings.actions:
        commands = [line.partition("#")[0] for line in action.by_hand.splitlines()]
        words = " ".join(commands).upper()
        for never in ("FLUSH", "FAILOVER", "SHUTDOWN", " KEYS ", "MONITOR", "KILL TYPE", "REPLICAOF", "CLUSTER RESET"):
            assert never not in words, action
        assert action.undo


def test_one_client_is_closed_by_id_and_address_with_its_idle_time_looked_at_again() -> None:
    [action] = diagnose(leaks().readings(), {}).actions
    assert "CLIENT KILL ID 44 ADDR 10.0.0.9:40112" in action.by_hand
    assert action.targets[0]["idle_seconds"] == 8000
    assert [p.holds for p in action.preconditions] == [None, None, True]


def test_maxclients_is_raised_no_further_than_its_files_allow_and_keeps_its_undo() -> None:
    cache = some_rejected()
    cache.host = [{"pid": 612, "state": "Ssl", "listening": "yes", "open_files_limit": 180}]
    [action] = diagnose(cache.readings(), {}).actions
    assert "CONFIG SET maxclients 148" in action.by_hand
    assert "maxclients 100" in action.undo


NAMES = sorted({r.name for r in Cache().readings()})
ALL = {name: make for name, (make, _) in CACHES.items()} | {"healthy": Cache}


@settings(deadline=None, max_examples=300)
@given(
    name=st.sampled_from(sorted(ALL)),
    lost=st.sets(st.sampled_from(NAMES), min_size=1),
    state=st.sampled_from(FAILED),
)
@example(name="plain", lost={"redis_walk"}, state="timeout")
@example(name="paused", lost={"redis_walk"}, state="timeout")
@example(name="down", lost={"health"}, state="unreachable")
@example(name="healthy", lost={"redis_info"}, state="permission_denied")
def test_a_failed_reading_never_raises_a_cause(name: str, lost: set[str], state: str) -> None:
    complete = ALL[name]().readings()
    cut: list[Reading] = [
        replace(r, state=state, reason="…", value=None, code="") if r.name in lost else r  # type: ignore[arg-type]
        for r in complete
    ]
    before = {v.cause: v.tier for v in diagnose(complete, {}).verdict}
    for after in diagnose(cut, {}).verdict:
        if after.tier in ("confirmed", "probable"):
            assert TIERS.index(after.tier) >= TIERS.index(before[after.cause]), after
            assert before[after.cause] in ("confirmed", "probable"), after


@pytest.mark.parametrize("state", FAILED)
def test_a_redis_that_cannot_be_read_is_never_healthy(state: str) -> None:
    failed = [replace(r, state=state, reason="…", value=None, code="") for r in Cache().readings()]  # type: ignore[arg-type]
    assert diagnose(failed, {}).outcome == "undetermined"


def test_the_same_readings_in_any_order_of_kinds_give_the_same_findings() -> None:
    taken = memory_full().readings()
    first = json.dumps(diagnose(taken, {}).as_dict())
    assert json.dumps(diagnose(list(taken), {}).as_dict()) == first
    names = list(dict.fromkeys(r.name for r in taken))
    random.Random(3).shuffle(names)
    mixed = [r for name in names for r in taken if r.name == name]
    assert [v.cause for v in diagnose(mixed, {}).verdict] == [v.cause for v in diagnose(taken, {}).verdict]


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("ECONNREFUSED", "K01"), ("DNS", "K02"), ("NOAUTH", "K03"), ("WRONGPASS", "K03"), ("NOPERM", "K04"),
        ("MAXCLIENTS", "K05"), ("OOM", "K07"), ("MISCONF", "K08"), ("READONLY", "K09"), ("MASTERDOWN", "K09"),
        ("LOADING", "K10"), ("BUSY", "K11"), ("DENIED", "K15"), ("CLUSTERDOWN", "K18"),
    ],
)  # fmt: skip
def test_a_ping_alone_is_enough_for_other_rooms(code: str, cause: str) -> None:
    taken = Readings([Cache()._ping(code)])
    one = finding(taken)
    assert one is not None
    assert one.cause == cause


def test_other_rooms_are_told_nothing_of_a_redis_that_serves_or_was_not_asked() -> None:
    assert finding(Readings([])) is None
    assert finding(Readings([Cache()._ping("")])) is None
    assert finding(Readings(Cache().readings())) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[ioredis] Unhandled error event: Error: connect ECONNREFUSED 127.0.0.1:6379", "refused"),
        ("redis.exceptions.ConnectionError: Error 111 connecting to cache:6380. Connection refused.", "refused"),
        ("feed without cache: ConnectionError: Multiple exceptions: [Errno 111] Connect call failed", "refused"),
        ("Error: connect ECONNREFUSED 10.0.0.4:5432", None),
        ("Error: getaddrinfo ENOTFOUND my-redis.internal", "dns"),
        ("ReplyError: NOAUTH Authentication required.", "auth"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "auth"),
        ("AuthenticationError: invalid username-password pair or user is disabled.", "auth"),
        ("password authentication failed for user web", None),
        ("ReplyError: MISCONF Redis is configured to save RDB snapshots, but cannot", "misconf"),
        ("ReadOnlyError: You can't write against a read only replica.", "readonly"),
        ("ERROR: cannot execute UPDATE in a read-only transaction", None),
        ("BusyLoadingError: Redis is loading the dataset in memory", "loading"),
        ("ReplyError: BUSY Redis is busy running a script.", "busy"),
        ("ReplyError: NOREPLICAS Not enough good replicas to write.", "noreplicas"),
        ("ReplyError: CLUSTERDOWN Hash slot not served", "clusterdown"),
        ("ReplyError: MOVED 5798 10.0.0.7:6379", "moved"),
        ("MaxRetriesPerRequestError: redis: Reached the max retries per request limit (which is 20).", "closed"),
        ("redis: Command timed out", "timeout"),
        ("POST /api/checkout failed: StripeConnectionError: ECONNREFUSED api.stripe.com", None),
        ("out of memory", None),
        ("2026-03-01 request served from cache in 3 ms", None),
    ],
)  # fmt: skip
def test_lines_of_a_log_by_what_they_say_of_redis(line: str, expected: str | None) -> None:
    assert kind(line) == expected


def test_prevention_is_checked_and_what_was_not_read_is_unknown() -> None:
    rows = {row["check"]: row for row in prevention(Cache(info={"maxmemory": 10**9, "aof_enabled": 1}).readings())}
    assert rows["memory has a limit"]["holds"] is True
    assert rows["changes survive a restart (append-only file)"]["holds"] is True
    assert rows["room for clients"]["holds"] is True
    evicting = {row["check"]: row["holds"] for row in prevention(evicts_jobs().readings())}
    assert evicting["a Redis that holds a queue never evicts"] is False
    assert {row["holds"] for row in prevention([])} == {None}


def test_a_save_that_failed_names_its_directory_and_its_disk() -> None:
    cache = misconf()
    cache.disk = reading("redis_disk", [{"mount": "/data", "used_percent": 100, "inodes_percent": 4}], source="shell")
    details: Any = verdict(diagnose(cache.readings(), {}), "K08").details
    assert (details["dir"], details["mount"], details["disk_used_percent"]) == ("/var/lib/redis", "/data", 100.0)


def test_the_ladder_fails_where_the_walk_ended_and_draws_nothing_beyond_as_passed() -> None:
    taken = wrong_password().readings()
    [one] = ladder(taken, {}, diagnose(taken, {}))
    states = {rung.layer: rung.state for rung in one.rungs}
    assert (states["greeting"], states["login"], states["PING"], states["write"]) == (
        "passes",
        "fails",
        "unknown",
        "unknown",
    )
    assert one.causes == ("K03",)
    assert ladder([], {}, None) == []


def test_a_limit_that_was_not_read_is_not_raised_to_a_number() -> None:
    [action] = diagnose(no_slot().readings(), {}).actions
    assert "CONFIG SET maxclients N " in action.by_hand
    assert [p.holds for p in action.preconditions] == [None, None]
    assert action.targets == [{"target": "db:5432/app"}]

"""Faults that make requests slow, each in another layer: statement, lock, pool, loop, vendor, Redis, release, place.

How slow they make them follows the threshold in force, so that each is a fault at the real one as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from runbook.sandbox import cgroups, hogs, patient
from runbook.sandbox.application.instance import WORK_SECONDS
from runbook.sandbox.application.stage import CLIENTS, NEXT_RELEASE, REQUESTS_PER_SECOND
from runbook.sandbox.application.traffic import MIX
from runbook.sandbox.faults import machine
from runbook.sandbox.faults.registry import fault, handicap
from runbook.sandbox.faults.scene import Scene

RUNBOOK = "high_response_time"
CLIENTS_MODULE = "runbook.sandbox.clients"
#: The percentile is taken over seconds instead of minutes, and an eighth of a second is slow already.
QUICK = {"rate_minutes": 0.15, "threshold_ms": 120, "min_requests": 80, "calls_per_request": 5}
_HOST = "api.stripe.com"
_SHA = "b81f0c7729de4413a5c06bb3fe92d1b75ac3e048"
_SEARCH = "lower(reference)"
_PLAY = "SELECT i, 'content-' || abs(i) % 3000, 'Content-' || i"
_STEPS = 8
"""So often a table or a loop is made larger, at most."""
_BUSY = 0.8
"""Part of a processor that a slow statement keeps busy; with more of it, everything on a small machine is slow."""
_OF_ALL = 0.12
"""Of all requests, those that meet a slow statement: enough for a 95th percentile."""


def _seconds(scene: Scene, times: float) -> float:
    """So many times what a request may take."""
    return times * scene.threshold("threshold_ms", 1000) / 1000


@fault("L01", "index dropped on a large table", scaled=QUICK)
def index_dropped(scene: Scene, *, rows: int = 600_000) -> None:
    """Somebody drops the index that a search needs, and the table is large: it is read in whole, every time."""
    _without_index(scene)

    def grow(begin: int, count: int) -> None:
        scene.as_superuser(f"INSERT INTO plays {_PLAY} FROM generate_series({begin}, {begin + count - 1}) AS i")

    took = _until_slow(scene, "SELECT id FROM plays WHERE lower(reference) = 'nobody'", grow, rows)
    scene.as_superuser("ANALYZE plays")
    scene.production.change(**_traffic("search", took))
    query_id = scene.wait_until(partial(_query_id, scene, _SEARCH), "the search to run")
    scene.production.fill_window()
    scene.name("L01", query_id, "plays")


def _without_index(scene: Scene) -> None:
    """Take the index of ``plays`` away, and workers that would help; all is as it was when the fault heals."""
    scene.production.change()  # its logs are cut back after the table is what it was
    scene.undo(partial(_small, scene))
    scene.as_superuser("DROP INDEX plays_reference")
    scene.as_superuser("ALTER TABLE plays SET (parallel_workers = 0)")


def _traffic(route: str, seconds: float) -> dict[str, Any]:
    """Traffic in which requests of that route, that take so long each, keep a processor as busy as they may."""
    others = sum(weight for name, (_, _, weight) in MIX.items() if name != route)
    every = min(0.7 * REQUESTS_PER_SECOND, _BUSY / seconds / _OF_ALL)
    return {"requests_per_second": every, "weights": {route: others * _OF_ALL / (1 - _OF_ALL)}}


def _until_slow(scene: Scene, statement: str, grow: Callable[[int, int], None], rows: int) -> float:
    """Have ``grow`` add rows until the statement takes longer than a request may, on this machine, at its best.

    How long it takes then, in seconds.
    """
    wanted, begin = _seconds(scene, 1.4), 10_000
    for _ in range(_STEPS):
        grow(begin, rows)
        begin += rows
        took = min(_timed(scene, statement) for _ in range(3))
        if took >= wanted:
            break
        # At most twice as many: what does not fit into memory any more is slower than it was by the row.
        rows = int((begin - 10_000) * min(1.0, max(0.2, 1.2 * wanted / took - 1)))
    return took


def _timed(scene: Scene, statement: str) -> float:
    began = time.perf_counter()
    scene.as_superuser(statement)
    return time.perf_counter() - began


def _small(scene: Scene) -> None:
    scene.as_superuser("TRUNCATE plays")
    scene.as_superuser("ALTER TABLE plays RESET (parallel_workers)")
    scene.as_superuser("DROP INDEX IF EXISTS plays_reference")
    scene.as_superuser(f"INSERT INTO plays {patient.PLAYS}")
    scene.as_superuser(f"CREATE INDEX {patient.PLAYS_INDEX}")
    scene.as_superuser("VACUUM (ANALYZE) plays")


def _query_id(scene: Scene, text: str) -> str | None:
    rows = scene.as_superuser(
        "SELECT query_id FROM pg_stat_activity WHERE application_name = 'web-app' AND query_id IS NOT NULL"
        f" AND query LIKE '%{text}%' LIMIT 1"
    )
    return str(rows[0][0]) if rows else None


@fault("L02", "table locked again and again", scaled=QUICK)
def table_locked(scene: Scene, *, application: str = "nightly-recount", like: int = 26) -> None:
    """A batch locks the table against writes for a while each time; what writes waits, what reads does not."""
    child = scene.child(
        CLIENTS_MODULE,
        {"act": "hold_lock", "dsn": scene.sandbox.dsn("worker"), "application": application, "table": "content",
         "seconds": _seconds(scene, 3)},
    )  # fmt: skip
    scene.production.change(weights={"like": like})
    scene.production.fill_window()
    scene.name("L02", child.greeting["pid"], application)


@fault("L03", "connections held while nothing runs", scaled=QUICK)
def pool_used_up(scene: Scene) -> None:
    """Each request keeps its connection while it works elsewhere: the pool is empty, the database idles."""
    scene.production.change(hold_connection_seconds=0.17)
    scene.production.fill_window()
    scene.name("L03", "P11")


@fault("L05", "event loop blocked", scaled=QUICK)
def loop_blocked(scene: Scene) -> None:
    """Something synchronous keeps the application's only thread, again and again: everything waits for it."""
    scene.production.change(block_seconds=_seconds(scene, 1.6))
    scene.production.fill_window()


@fault("L08", "vendor answers slowly", scaled=QUICK)
def vendor_sleeps(scene: Scene) -> None:
    """Stripe sleeps before it answers, twice as long as a request may take; its status page says nothing."""
    scene.production.vendor_fails("stripe", delay_seconds=_seconds(scene, 2))
    scene.production.change(vendor_seconds=_seconds(scene, 2) + 5)
    scene.production.fill_window()
    scene.name("L08", _HOST)


@fault("L09", "more requests than the instances can answer", scaled=QUICK)
def response_surge(scene: Scene, *, times: int = 4) -> None:
    """Four times as many people as before: requests queue before the instances, and are answered late."""
    backlog = int(_seconds(scene, 1.8) / WORK_SECONDS)
    scene.production.change(
        requests_per_second=REQUESTS_PER_SECOND * times, clients=CLIENTS * times, backlog=max(8, backlog)
    )
    scene.grow_older_than(_seconds(scene, 2))
    scene.production.fill_window()


@fault("L10", "statements in a loop", scaled=QUICK)
def statements_in_a_loop(scene: Scene) -> None:
    """A list that used to be one statement asks for each of its items by itself, over and over."""
    # The statistics have a past like the access log: the usual mix of what is asked of the two tables.
    for table, key, times in (("content", "'content-' || 1 + g % 3000", 30_000), ("plays", "1 + g % 3000", 1500)):
        scene.as_superuser(
            f"SELECT count(*) FROM generate_series(1, {times}) g CROSS JOIN LATERAL"
            f" (SELECT FROM {table} WHERE id = {key} OFFSET 0) x"
        )
    took = _loop_until_slow(scene)
    scene.production.change(**_traffic("browse", took))
    scene.production.fill_window()


def _loop_until_slow(scene: Scene) -> float:
    """Have the list ask for so many items that it takes longer than a request may; how long, in seconds."""
    wanted, items = _seconds(scene, 1.4), 40
    scene.production.change(requests_per_second=0)
    for _ in range(_STEPS):
        scene.production.change(statements_in_a_loop=items)
        took = min(scene.production.timed("/api/content") for _ in range(3))
        if took >= wanted:
            break
        items = int(items * min(4.0, max(1.2, 1.2 * wanted / took)))
    return took


@fault("L11", "Redis busy with long scripts", scaled=QUICK)
def redis_busy(scene: Scene, *, name: str = "nightly-ranking", feed: int = 30) -> None:
    """Somebody runs long scripts in Redis, that answers nobody meanwhile."""
    scene.production.change(weights={"feed": feed})
    scene.undo(partial(_forget_slow_commands, scene))
    scene.child(
        CLIENTS_MODULE,
        {"act": "long_scripts", "url": scene.sandbox.settings()["redis"]["url"], "name": name,
         "seconds": _seconds(scene, 3)},
    )  # fmt: skip
    scene.production.fill_window()
    scene.name("L11", "EVAL")


def _forget_slow_commands(scene: Scene) -> None:
    with scene.sandbox.redis() as redis:
        redis.slowlog_reset()


@fault("L13", "one slow instance", scaled=QUICK)
def slow_instance(scene: Scene, *, instance: str = "web-2") -> None:
    """One instance of four takes twice as long as a request may; the others, of the same release, are well."""
    scene.production.change(slownesses=[{"instance": instance, "seconds": _seconds(scene, 2)}])
    scene.production.fill_window()
    scene.name("L13", instance)


@fault("L15", "slower release", scaled=QUICK)
def slower_release(scene: Scene, *, instances: tuple[str, ...] = ("web-3", "web-4")) -> None:
    """Half of the instances run a new release that is slow, and the old one goes on beside it."""
    production = scene.production
    production.deploy(_SHA, ref=f"v{NEXT_RELEASE.partition('@')[2]}", description="Recommendations")
    production.change(
        releases=dict.fromkeys(instances, NEXT_RELEASE),
        slownesses=[{"release": NEXT_RELEASE, "seconds": _seconds(scene, 2)}],
    )
    production.fill_window()
    scene.name("L15", NEXT_RELEASE)


@fault("L16", "a cgroup's quota of processor time used up", scaled=QUICK, needs=(machine.quotas,))
def quota_used_up(scene: Scene, *, cores: float = 0.3) -> None:
    """A batch in the application's own cgroup uses up what both may have: then both stand still for a while."""
    scene.production.change()
    # Who is under way when it begins stands still for longer than a request may take, and that happens often.
    group = cgroups.make_with_quota(cores, min(1.0, _seconds(scene, 2)))
    scene.undo(group.remove)
    scene.child(hogs.MODULE, {"act": "burn", "join": str(group.directory / "cgroup.procs")})
    scene.undo(group.borrow(scene.sandbox.status()["application"]["pid"]))
    scene.wait_until(lambda: group.throttled > 1, "the quota to be used up")
    scene.production.fill_window()
    scene.name("L16", group.path)


@fault("L17", "dead rows kept by an old snapshot", scaled=QUICK)
def dead_rows(scene: Scene, *, rows: int = 80_000, application: str = "yearly-report") -> None:
    """A table is worked off like a queue while a report holds its snapshot: every look passes all the dead rows."""
    scene.production.change()
    scene.undo(partial(_small, scene))
    holder = scene.session("worker", application)
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT count(*) FROM content")

    def work_off(begin: int, count: int) -> None:
        # They stand before all others in the index, and everywhere in the table.
        play = "SELECT i, 'content-1', 'Aged-' || md5(i::text)"
        scene.as_superuser(f"INSERT INTO plays {play} FROM generate_series({-begin - count + 1}, {-begin}) AS i")
        scene.as_superuser("DELETE FROM plays WHERE id < 0")

    took = _until_slow(scene, "SELECT id, content_id FROM plays ORDER BY lower(reference) LIMIT 1", work_off, rows)
    scene.production.change(search_oldest=True, **_traffic("search", took))
    scene.production.fill_window()
    scene.name("L17", "plays", holder.info.backend_pid)


@fault("insufficient:slow", "a few slow requests", expects=(), outcomes=("insufficient_data",), runbooks=(RUNBOOK,),
       scaled=QUICK)  # fmt: skip
def few_slow_requests(scene: Scene, *, requests: int = 20) -> None:
    """So little traffic that slow requests are no percentile."""
    rate = requests / (60 * scene.threshold("rate_minutes", 5))
    scene.production.change(
        requests_per_second=rate, uploads_per_second=0, slownesses=[{"seconds": _seconds(scene, 2)}]
    )
    scene.production.fill_window()


@handicap("no_durations", "the access log carries no durations", tried_with="L08", unknown=("traffic",))
def no_durations(scene: Scene) -> None:
    """Without durations nobody knows what is slow, whatever else is seen."""
    scene.settings.setdefault("traffic", {})["fields"] = {"duration_ms": "took_nothing"}


@handicap("no_spans", "the access log tells no time of a vendor's own", tried_with="L08", blinds=False)
def no_spans(scene: Scene) -> None:
    """Where the log says nothing, our own look at the host has to."""
    scene.settings.setdefault("traffic", {})["fields"] = {"upstream_response_time": "took_nothing"}


@handicap("no_database_login", "the database refuses the diagnosing role", tried_with="L01", unknown=("postgresql",))
def no_database_login(scene: Scene) -> None:
    """Which route is slow is seen, and not why."""
    dsn = scene.sandbox.dsn("monitor")
    before, _, after = dsn.rpartition("@")
    scene.settings.setdefault("postgres", {})["dsn"] = f"{before.rpartition(':')[0]}:wrong@{after}"

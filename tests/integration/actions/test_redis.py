"""What acts on a real Redis: a script that hangs ends, idle clients are closed, more clients are taken; nobody else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from runbook.actions import redis_acting
from runbook.actions.plan import Order, Refused
from tests.integration.actions.desk import ME, Desk, order
from tests.integration.connectors.redis_servers import RedisProcess, running
from tests.support import wait_until

SCRIPT, CLIENT, MAXCLIENTS = "redis.script_kill", "redis.kill_client", "redis.raise_maxclients"
ENDLESS = "while true do end"
WRITES = "redis.call('SET', 'written', 1) while true do end"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    with running(tmp_path, "--lua-time-limit", "50", "--maxclients", "40") as made:
        yield made


@pytest.fixture
def desk(server: RedisProcess, database: str, data: Path) -> Desk:
    return Desk({"redis": {"url": server.url(), "action_url": server.url()}, "store": {"url": database}})


def refused(desk: Desk, asked: Order, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        desk.do(lambda desk: desk.acting.plan(asked, ME))


# -- scripts -----------------------------------------------------------------------------------------------------------


def busy(server: RedisProcess) -> bool:
    with server.client() as client:
        try:
            client.ping()
        except redis.ResponseError as error:
            return "BUSY" in str(error)
    return False


@contextlib.contextmanager
def script(server: RedisProcess, text: str = ENDLESS) -> Iterator[Callable[[], str]]:
    """A client whose script runs; what it was answered."""
    said: list[str] = []

    def run() -> None:
        with server.client() as client:
            try:
                client.eval(text, 0)
            except redis.RedisError as error:
                said.append(str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(lambda: busy(server), what="the script to keep Redis busy")

    def answered() -> str:
        thread.join(5)
        return said[0] if said else ""

    yield answered


def test_a_script_that_hangs_is_ended_and_redis_answers_again(desk: Desk, server: RedisProcess) -> None:
    asked = order(SCRIPT, [{"said": "BUSY"}])
    desk.symptom = lambda: float(busy(server))

    async def steps(desk: Desk) -> Any:
        return await desk.applied(asked), await desk.acting.verify(asked, ME)

    with script(server) as answered:
        (effect,), verified = desk.do(steps)
        assert "killed by user" in answered()
    assert effect.done
    assert (verified["verdict"], verified["holds"]) == ("fixed", True)
    assert not busy(server)


def test_a_script_that_has_written_is_not_ended_and_the_server_goes_on(desk: Desk, server: RedisProcess) -> None:
    asked = order(SCRIPT, [{"said": "BUSY"}])

    async def steps(desk: Desk) -> Any:
        await desk.approved(asked)
        with pytest.raises(Refused, match="UNKILLABLE") as told:
            await desk.acting.apply(asked, ME)
        return str(told.value.remedy), await desk.events(asked)

    with script(server, WRITES):
        remedy, events = desk.do(steps)
        assert busy(server)
        assert server.process.poll() is None
    assert "owner's decision" in remedy
    assert events[-1] == "failed"


def test_a_script_that_ended_between_plan_and_apply_takes_none_with_it(desk: Desk, server: RedisProcess) -> None:
    asked = order(SCRIPT, [{"said": "BUSY"}])

    async def steps(desk: Desk) -> Any:
        with script(server) as answered:
            await desk.approved(asked)
            with server.client() as client:
                client.script_kill()
            answered()
        return await desk.acting.apply(asked, ME)

    (effect,) = desk.do(steps)
    assert (effect.done, "nothing was ended" in effect.said) == (False, True)


def test_without_a_script_there_is_nothing_to_end(desk: Desk) -> None:
    refused(desk, order(SCRIPT, [{}]), "no script keeps")


# -- clients -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def client_of(server: RedisProcess, name: str = "cart", **options: Any) -> Iterator[Any]:
    """A client with a connection of its own."""
    client = server.client(client_name=name, single_connection_client=True, **options)
    try:
        client.ping()
        yield client
    finally:
        with contextlib.suppress(redis.RedisError):
            client.close()


def seen(server: RedisProcess, client: Any, idle: int = 1) -> dict[str, Any]:
    """The client as a run saw it, once it has been idle for so many seconds."""
    own = client.client_id()
    with server.client() as admin:
        row = wait_until(lambda: next(
            (c for c in admin.client_list() if int(c["id"]) == own and int(c["idle"]) >= idle), None))  # fmt: skip
    return {"id": own, "addr": row["addr"], "name": row["name"], "idle_seconds": int(row["idle"])}


def connected(server: RedisProcess, number: int) -> bool:
    with server.client() as admin:
        return any(int(c["id"]) == number for c in admin.client_list())


def test_an_idle_client_is_closed_and_another_of_its_name_is_not(desk: Desk, server: RedisProcess) -> None:
    with client_of(server) as idle, client_of(server) as other:
        target, unhurt = seen(server, idle), other.client_id()
        asked = order(CLIENT, [target])
        desk.symptom = lambda: 5.0 * connected(server, target["id"])

        async def steps(desk: Desk) -> Any:
            return await desk.applied(asked), await desk.acting.verify(asked, ME)

        (effect,), verified = desk.do(steps)
        assert (effect.done, effect.target) == (True, f"127.0.0.1:{server.port}#{target['id']}")
        assert (verified["verdict"], verified["holds"]) == ("fixed", True)
        assert not connected(server, target["id"])
        assert connected(server, unhurt)


@pytest.mark.parametrize("does", [lambda c: c.ping(), lambda c: c.client_setname("other")], ids=["works", "renamed"])
def test_a_client_that_did_something_between_plan_and_apply_is_left_alone(
    desk: Desk, server: RedisProcess, does: Callable[[Any], object]
) -> None:
    with client_of(server) as idle:
        target = seen(server, idle, idle=3)
        asked = order(CLIENT, [target])

        async def steps(desk: Desk) -> Any:
            await desk.approved(asked)
            does(idle)
            return await desk.acting.apply(asked, ME), await desk.events(asked)

        (effect,), events = desk.do(steps)
        assert effect.done is False
        assert events[-1] == "refused"
        assert connected(server, target["id"])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"addr": "127.0.0.1:1"}, "another client"),
        ({"name": "other"}, "another client"),
        ({"idle_seconds": 900}, "done something since"),
        ({"id": 4_000_000}, "it is gone"),
    ],
)
def test_another_client_than_the_run_saw_is_not_planned(
    desk: Desk, server: RedisProcess, changed: dict[str, Any], reason: str
) -> None:
    with client_of(server) as idle:
        refused(desk, order(CLIENT, [seen(server, idle) | changed]), reason)
        assert idle.ping()


@pytest.mark.parametrize("name", ["runbook-diagnose", "sentinel-1b2c-pubsub"])
def test_our_own_and_sentinels_are_never_closed(desk: Desk, server: RedisProcess, name: str) -> None:
    with client_of(server, name) as one:
        refused(desk, order(CLIENT, [seen(server, one)]), "our own|Sentinel")
        assert one.ping()


def test_subscribers_monitors_and_blocked_workers_are_never_closed(desk: Desk, server: RedisProcess) -> None:
    with client_of(server, "sub") as sub, client_of(server, "work") as worker, client_of(server, "mon") as monitor:
        targets = [seen(server, client) for client in (sub, worker, monitor)]
        subscribed = sub.pubsub()
        subscribed.connection = sub.connection
        sub.connection.send_command("SUBSCRIBE", "news")
        worker.connection.send_command("BRPOP", "jobs", 0)
        monitor.connection.send_command("MONITOR")

        def there() -> set[str]:
            with server.client() as admin:
                return {c["flags"] for c in admin.client_list() if c["name"] in ("sub", "work", "mon")}

        wait_until(lambda: there() == {"P", "b", "O"}, what="their flags")
        idle = [target | {"idle_seconds": 0} for target in targets]
        refused(desk, order(CLIENT, idle), "a subscriber.*in a blocking command.*a monitor")
        with server.client() as admin:
            assert {"sub", "work", "mon"} <= {c["name"] for c in admin.client_list()}


def test_a_replica_and_its_masters_side_are_never_closed(
    desk: Desk, server: RedisProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("replica")
    with running(directory, "--replicaof", "127.0.0.1", str(server.port)) as replica:

        def replicas(of: RedisProcess, flag: str) -> list[dict[str, Any]]:
            with of.client() as admin:
                return [c for c in admin.client_list() if flag in c["flags"]]

        (there,) = wait_until(lambda: replicas(server, "S"), what="the replica")
        target = {"id": int(there["id"]), "addr": there["addr"], "name": there["name"], "idle_seconds": 0}
        refused(desk, order(CLIENT, [target]), "a replica")
        (master,) = wait_until(lambda: replicas(replica, "M"), what="its master")
        desk.plain["redis"] = {"url": replica.url(), "action_url": replica.url()}
        target = {"id": int(master["id"]), "addr": master["addr"], "name": master["name"], "idle_seconds": 0}
        refused(desk, order(CLIENT, [target]), "its master")


def test_what_was_closed_before_the_server_refused_is_told(desk: Desk, server: RedisProcess) -> None:
    with client_of(server) as first, client_of(server) as second, client_of(server) as third:
        targets = [seen(server, one) for one in (first, second, third)]
        with server.client() as admin:
            admin.execute_command("ACL", "SETUSER", "act", "on", ">act-secret", "+@all", "~*")
        desk.plain["redis"]["action_url"] = server.url("act:act-secret")
        from runbook.actions import redis_clients

        closed, calls = redis_clients._closed, iter(range(3))

        def one_at_a_time(session: Any, target: Any) -> Any:
            if next(calls) == 1:
                with server.client() as admin:
                    admin.execute_command("ACL", "SETUSER", "act", "-client")
            return closed(session, target)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(redis_clients, "_closed", one_at_a_time)
            effects = desk.do(lambda desk: desk.applied(order(CLIENT, targets)))
        assert [effect.done for effect in effects] == [True, False, False]
        assert ["not known to be done" in effects[1].said, effects[2].said] == [True, "not tried"]
        assert third.ping()


def test_eleven_clients_are_too_many(desk: Desk, server: RedisProcess) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client_of(server)) for _ in range(11)]
        refused(desk, order(CLIENT, [seen(server, one) for one in clients]), "11 targets are too many")
        assert all(one.ping() for one in clients)


# -- how many it takes -------------------------------------------------------------------------------------------------


def maxclients(server: RedisProcess, value: int | None = None) -> int:
    with server.client() as admin:
        if value is not None:
            admin.config_set("maxclients", value)
        return int(admin.config_get("maxclients")["maxclients"])


def test_more_clients_are_taken_and_as_few_as_before_again(desk: Desk, server: RedisProcess) -> None:
    asked = order(MAXCLIENTS, [{"maxclients": 40, "to": 80}])

    async def steps(desk: Desk) -> Any:
        (effect,) = await desk.applied(asked)
        now = maxclients(server)
        return effect, now, await desk.acting.verify(asked, ME), await desk.acting.undo(asked, ME)

    effect, now, verified, (undone,) = desk.do(steps)
    assert (effect.done, now, verified["holds"], undone.done) == (True, 80, True, True)
    assert maxclients(server) == 40


def test_a_full_server_is_helped_as_soon_as_a_slot_is_free(desk: Desk, server: RedisProcess) -> None:
    asked = order(MAXCLIENTS, [{"maxclients": 3, "to": 80}])
    maxclients(server, 3)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client_of(server)) for _ in range(3)]
        gone = threading.Timer(0.7, clients[0].connection.disconnect)
        gone.start()
        desk.do(lambda desk: desk.applied(asked))
        gone.join()
        assert maxclients(server) == 80


def test_a_full_server_whose_clients_all_stay_is_told_so(
    desk: Desk, server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_acting, "SLOT_SECONDS", 0.3)
    maxclients(server, 2)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(client_of(server))
        with pytest.raises(Refused, match="no slot for one client more") as refusal:
            desk.do(lambda desk: desk.acting.plan(order(MAXCLIENTS, [{"maxclients": 2, "to": 4}]), ME))
    assert "Stop one of its clients" in str(refusal.value.remedy)


def test_a_run_that_was_turned_away_itself_asks_for_twice_as_many(desk: Desk, server: RedisProcess) -> None:
    asked = order(MAXCLIENTS, [{"target": "127.0.0.1:6379"}])
    plan = desk.do(lambda desk: desk.acting.plan(asked, ME))
    assert [(target.before, target.after) for target in plan.draft.targets] == [(40, 80)]


def test_what_somebody_else_has_set_since_stays(desk: Desk, server: RedisProcess) -> None:
    asked = order(MAXCLIENTS, [{"maxclients": 40, "to": 80}])
    other = order(MAXCLIENTS, [{"maxclients": 40, "to": 90}], id="20261129T120000000-k3f9qa7m:P02.act", cause="K05")

    async def steps(desk: Desk) -> Any:
        await desk.approved(asked)
        maxclients(server, 50)
        (left,) = await desk.acting.apply(asked, ME)
        desk.acting._settings = desk.acting._settings.model_copy(
            update={"actions": desk.acting._settings.actions.model_copy(update={"cooldown_minutes": 0})})  # fmt: skip
        await desk.applied(other)
        maxclients(server, 60)
        return left, await desk.acting.undo(other, ME)

    left, (undone,) = desk.do(steps)
    assert (left.done, "50 by now" in left.said) == (False, True)
    assert (undone.done, "60 by now" in undone.said) == (False, True)
    assert maxclients(server) == 60


@pytest.mark.parametrize("targets", [[{"maxclients": 40, "to": 30}], [], [{"to": 9_000_000}]])
def test_it_is_raised_and_to_a_number_that_can_be(desk: Desk, server: RedisProcess, targets: Any) -> None:
    refused(desk, order(MAXCLIENTS, targets), "already|did not learn|no number")
    assert maxclients(server) == 40


def test_more_than_its_open_files_allow_is_refused_by_the_server(desk: Desk, server: RedisProcess) -> None:
    asked = order(MAXCLIENTS, [{"maxclients": 40, "to": 99_999}])
    import resource

    if resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[1] > 100_031:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (4096, 4096))

    async def steps(desk: Desk) -> None:
        await desk.approved(asked)
        with pytest.raises(Refused, match="refuses CONFIG SET"):
            await desk.acting.apply(asked, ME)

    desk.do(steps)
    assert maxclients(server) == 40


# -- who acts ----------------------------------------------------------------------------------------------------------


def test_only_a_login_of_its_own_acts(desk: Desk, server: RedisProcess) -> None:
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "look", "on", ">look-secret", "+@read", "+client|list", "~*")
    asked = order(MAXCLIENTS, [{"maxclients": 40, "to": 80}])
    ways = {
        "action_url is not set": None,
        "the one that diagnoses": server.url("look:look-secret"),
        "another server": "redis://127.0.0.1:1/0",
        "does not get in": server.url("look:wrong-secret").replace("look:", "other:"),
    }
    for reason, url in ways.items():
        desk.plain["redis"] = {"url": server.url("look:look-secret"), "action_url": url}
        refused(desk, asked, reason)
    desk.plain["redis"] = {"url": server.url(), "action_url": server.url("look:look-secret")}
    refused(desk, asked, "refuses CONFIG GET")


def test_no_kernel_is_given_the_login_that_acts(desk: Desk) -> None:
    from runbook import settings

    assert "action_url" not in settings.from_plain(desk.plain).diagnosing()["redis"]

"""Faults of a health check: at the processes, on the way to them, and behind the endpoint."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

from runbook.sandbox.application.replica import DEPLOY, MOST_FILES
from runbook.sandbox.faults import machine
from runbook.sandbox.faults.instances import (
    PATTERN,
    address,
    certificate,
    front,
    full_disk,
    metrics_server,
    own_redis,
    started,
    stop,
    told,
)
from runbook.sandbox.faults.production import Production
from runbook.sandbox.faults.registry import fault, handicap
from runbook.sandbox.faults.scene import Scene

#: A checker that waits one second, so that a drill takes seconds; the look that is patient waits longer.
QUICK = {"checker_timeout": 1.0, "patience": 2.5, "process_pattern": PATTERN}
SLOW_SECONDS = 1.5
_SHA_BEFORE, _SHA = "3f0a52c1be7d94816a0c5e2f7b1d83e6490ca7d2", "b81c0d4e7f2a963508d1e4c7a05f3b926e8d7140"
RUNBOOK = "health_check_failure"
here = partial(fault, runbooks=(RUNBOOK,), scaled=QUICK)


# -- at the processes -------------------------------------------------------------------------------------------------


@here("H01", "application down")
def application_down(scene: Scene) -> None:
    """Both instances are killed; the front before them answers 502, and nobody listens at their ports."""
    instances = started(scene, "ok", "ok")
    told(scene, [address(i) for i in instances], front(scene, [address(i) for i in instances]))
    for instance in instances:
        instance.kill()
    scene.name("H01", "ECONNREFUSED", address(instances[0]))


@here("H01:loop", "application restarts again and again")
def crash_loop(scene: Scene) -> None:
    """It ends half a second after each start, before it listens; a supervisor starts it anew."""
    (instance,) = started(scene, "crash")
    told(scene, [address(instance)], front(scene, [address(instance)]))
    scene.name("H01", address(instance), "restarts")


@here("H02", "application stopped")
def application_stopped(scene: Scene) -> None:
    """SIGSTOP: connections come about, since the kernel makes them, and nothing is answered."""
    instances = started(scene, "ok", "ok")
    told(scene, [address(i) for i in instances], front(scene, [address(i) for i in instances]))
    for instance in instances:
        stop(scene, instance)
    scene.name("H02", instances[0].pid, "stopped")


@here("H02:loop", "application in a loop")
def application_in_a_loop(scene: Scene) -> None:
    """Its only thread never comes back: as silent as a stopped one, and a whole processor busy."""
    (instance,) = started(scene, "loop")
    told(scene, [address(instance)], address(instance))
    scene.name("H02", instance.pid, "busy")


@here("H02:one", "one instance stopped", expects=("H12", "H02"))
def one_instance_stopped(scene: Scene) -> None:
    """One of three instances is stopped, the others are well: that one, and only that one, may be restarted."""
    instances = started(scene, "ok", "ok", "ok")
    stop(scene, instances[1])
    told(scene, [address(i) for i in instances], front(scene, [address(instances[0]), address(instances[2])]))
    scene.name("H12", address(instances[1]), "H02")
    scene.name("H02", instances[1].pid)


@here("H03", "listens on another port")
def another_port(scene: Scene) -> None:
    """The application runs, and its port is not the one that balancer and checker know."""
    (instance,) = started(scene, "ok")
    expected = f"127.0.0.1:{Production.closed_port()}"
    told(scene, [expected], front(scene, [expected]))
    scene.name("H03", address(instance), instance.pid)


@here("H10", "application starting")
def application_starting(scene: Scene) -> None:
    """It has just been started and runs its migrations: live, and not yet ready."""
    instances = started(scene, "starting", "starting")
    told(scene, [address(i) for i in instances], front(scene, [address(i) for i in instances]))
    scene.name("H10", "migrations")


@here("H12", "one instance ill")
def one_instance_ill(scene: Scene) -> None:
    """One of four instances misses a setting and is never ready; the others carry its load."""
    instances = started(scene, "ok", "ok", "failing", "ok")
    told(scene, [address(i) for i in instances], front(scene, [address(i) for i in instances]))
    scene.name("H12", address(instances[2]), "1 of 4")


@here("H13", "accept queue full")
def accept_queue_full(scene: Scene) -> None:
    """The smallest queue there is, full, and nobody takes a connection out of it: ours do not come about."""
    (instance,) = started(scene, "deaf")
    told(scene, [address(instance)], address(instance))
    for _ in range(4):
        client = socket.socket()
        scene.undo(client.close)
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", instance.greeting["port"]))
    scene.name("H13", address(instance), instance.pid)


@here("H13:files", "no open file left")
def no_file_left(scene: Scene) -> None:
    """It leaked files up to its limit: the kernel takes connections, and it can accept none (EMFILE)."""
    (instance,) = started(scene, "files")
    told(scene, [address(instance)], address(instance))
    scene.name("H13", instance.pid, MOST_FILES)


# -- on the way -------------------------------------------------------------------------------------------------------


@here("H04", "name does not resolve")
def name_gone(scene: Scene, *, host: str = "health.app.invalid") -> None:
    """The name that the checker asks has no address; the instances answer at theirs."""
    instances = [address(i) for i in started(scene, "ok", "ok")]
    told(scene, instances, front(scene, instances), host=host)
    scene.name("H04", host)


@here("H05", "certificate expired")
def certificate_expired(scene: Scene, *, host: str = "localhost", days: float = -2.0) -> None:
    """The front's certificate ended the day before yesterday; behind it everything is well."""
    instances = [address(i) for i in started(scene, "ok", "ok")]
    file, dates = certificate(scene, host, days=days)
    told(scene, instances, front(scene, instances, certificate=file), scheme="https", host=host)
    scene.name("H05", host, dates["not_after"], "expired")


@here("H05:behind", "certificate expired before an application that is not ready", expects=("H05", "H07"))
def two_at_once(scene: Scene, *, host: str = "localhost") -> None:
    """Who renews the certificate and goes to bed is called again: behind it Redis is down."""
    instances = _without_redis(scene)
    file, dates = certificate(scene, host, days=-0.5)
    told(scene, instances, front(scene, instances, certificate=file), scheme="https", host=host)
    scene.name("H05", dates["not_after"])
    scene.name("H07", "Redis")


@here("H06", "edge answers 502")
def edge_fails(scene: Scene) -> None:
    """The front's targets are wrong: it answers 502 by itself, and every instance is well."""
    instances = [address(i) for i in started(scene, "ok", "ok")]
    entrance = front(scene, [f"127.0.0.1:{Production.closed_port()}"])
    told(scene, instances, entrance)
    scene.name("H06", entrance, 502)


@here("H09", "health endpoint moved")
def endpoint_moved(scene: Scene) -> None:
    """A release moved the endpoint: the checker is redirected, and everything else is well."""
    instances = [address(i) for i in started(scene, "moved", "moved")]
    told(scene, instances, front(scene, instances))
    scene.name("H09", 301, "/healthz")


# -- behind the endpoint ----------------------------------------------------------------------------------------------


@here("H07", "Redis down, not ready")
def redis_down(scene: Scene) -> None:
    """Redis is killed: every instance lives and answers 503 to its readiness check."""
    _without_redis(scene)
    scene.name("H07", "Redis", "K01", 503)


@here("H07:database", "database refuses, not ready")
def database_refuses(scene: Scene, *, role: str = "batch") -> None:
    """The application's role may have one session and has it elsewhere: its readiness check cannot connect."""
    scene.change(f"ALTER ROLE {role} CONNECTION LIMIT 1", f"ALTER ROLE {role} CONNECTION LIMIT -1")
    scene.session(role, "jobs")
    instances = [address(i) for i in started(scene, "ok", "ok", database_dsn=scene.sandbox.dsn(role))]
    told(scene, instances, front(scene, instances))
    scene.name("H07", "database", "P06")


@here("H07:vendor", "vendor down, not ready")
def vendor_down(scene: Scene, *, host: str = "api.payments.example") -> None:
    """A vendor that the readiness check asks answers 503."""
    (vendor,) = started(scene, "failing", word="vendor")
    url = f"http://{address(vendor)}/health/ready"
    scene.settings.setdefault("traffic", {})["upstream_hosts"] = [f"{host}={url}"]
    instances = [address(i) for i in started(scene, "ok", "ok", vendors={"payments": url})]
    told(scene, instances, front(scene, instances))
    scene.name("H07", host)


@here("H08", "slower than the checker waits")
def too_slow(scene: Scene) -> None:
    """Every readiness check takes longer than the checker waits, and is well in the end."""
    instances = [address(i) for i in started(scene, "slow", "slow", seconds=SLOW_SECONDS)]
    told(scene, instances, front(scene, instances))


@here("H11", "checker's side", programs={"prometheus": "prometheus"})
def checker_side(scene: Scene) -> None:
    """A metrics server probes a port that was right last year; the endpoint and its instances are well."""
    instances = [address(i) for i in started(scene, "ok", "ok")]
    told(scene, instances, front(scene, instances))
    metrics_server(scene, target=f"127.0.0.1:{Production.closed_port()}", name=scene.settings["app"]["ready_url"])
    scene.name("H11", scene.settings["app"]["ready_url"])


@here("H14", "disk full, not ready", needs=(machine.mounts,))
def disk_full(scene: Scene) -> None:
    """The disk that the application writes to is full, and its readiness check says so."""
    place = full_disk(scene)
    instances = [address(i) for i in started(scene, "ok", "ok", scratch=place)]
    told(scene, instances, front(scene, instances))
    scene.name("H14", "No space left on device", "disk")


@here("H15", "new release does not get ready")
def new_release(scene: Scene) -> None:
    """Half of the instances run the new release and are never ready; those of the old one are well."""
    bad = "api@2.4.0"
    old, new = (
        [address(i) for i in started(scene, "ok", "ok", release=release, never_ready=bad)]
        for release in ("api@2.3.0", bad)
    )
    told(scene, [*old, *new], front(scene, old))
    production = scene.production
    production.deploy(_SHA_BEFORE, ref="v2.3.0", description="Words on the profile", minutes_ago=3000)
    production.deploy(_SHA, ref="v2.4.0", description="Payments by invoice")
    production.deployed_to(f"http://{front(scene, [*old, *new])}{DEPLOY}")
    scene.name("H15", "api@2.4.0", "api@2.3.0")


@here("H16", "degraded without Redis")
def degraded(scene: Scene) -> None:
    """The application does without Redis: it answers 200, and says so in the body."""
    _without_redis(scene, tolerant=True)
    scene.name("H16", "redis", "K01")


def _without_redis(scene: Scene, **orders: Any) -> list[str]:
    """Instances whose Redis was killed, behind a front."""
    server, state, url = own_redis(scene)
    instances = [address(i) for i in started(scene, "ok", "ok", redis_url=url, **orders)]
    told(scene, instances, front(scene, instances))
    server.end(state["pid"])
    return instances


# -- what the diagnosis lacks -----------------------------------------------------------------------------------------


@handicap("no_ready_url", "no readiness endpoint is configured", tried_with="H07", blinds=False)
def no_ready_url(scene: Scene) -> None:
    """The detailed endpoint has to do."""
    scene.settings.setdefault("app", {})["ready_url"] = ""


@handicap("only_public_url", "nothing but the public address is configured", tried_with="H07")
def only_public_url(scene: Scene) -> None:
    """A page that answers says nothing of health."""
    scene.settings.setdefault("app", {}).update(ready_url="", health_url="", live_url="", instances=[])


@handicap("no_hosts", "the instances' hosts cannot be looked at", tried_with="H05", blinds=False)
def no_hosts(scene: Scene) -> None:
    """Neither processes nor sockets are seen; what the way itself shows must be told all the same."""
    scene.settings.setdefault("workers", {})["hosts"] = ["nobody@127.0.0.1:1"]

"""Faults of Redis, each done to a real server that the application uses for its cache."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from runbook.sandbox.faults import machine
from runbook.sandbox.faults.redis_stage import of
from runbook.sandbox.faults.registry import fault, find_program, handicap
from runbook.sandbox.faults.scene import Scene
from runbook.sandbox.stack import PREFIX, QUEUE

RUNBOOK = "redis_connection_failure"
ONLY = (RUNBOOK,)
QUICK = {"answer_seconds": 1.0, "patience_seconds": 0.8, "recent_seconds": 15.0, "leak_idle_seconds": 1.0,
         "samples": 3}  # fmt: skip
"""Waits of a second instead of several; what was a moment ago is fifteen seconds old."""


@fault("K01", "Redis is down", scaled=QUICK, runbooks=ONLY)
def down(scene: Scene) -> None:
    """The server is gone; nothing listens on its port."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    stage.signal(signal.SIGKILL)
    stage.felt("111|refused")
    scene.name("K01", "ECONNREFUSED")


@fault("K02", "name does not resolve", scaled=QUICK, runbooks=ONLY)
def no_name(scene: Scene) -> None:
    """The endpoint was renamed; its old name is unknown."""
    stage = of(scene)
    stage.configure(f"redis://:{stage.password}@cache.acme.invalid:{stage.port}/0")
    stage.felt("cache.acme.invalid|[Nn]ame")
    scene.name("K02", "DNS")


@fault("K03", "password was changed", scaled=QUICK, runbooks=ONLY)
def password_changed(scene: Scene) -> None:
    """Somebody changed the server's password and not the application's; clients had to connect anew."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    _ask_all(scene, ("CONFIG", "SET", "requirepass", "another-password"), ("CLIENT", "KILL", "TYPE", "normal"))
    stage.felt("invalid|WRONGPASS|Authentication")
    scene.name("K03", "WRONGPASS")


@fault("K04", "access control list forbids writes", scaled=QUICK, runbooks=ONLY)
def no_rights(scene: Scene) -> None:
    """A new list of rights leaves out what the application does."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    stage.ask("ACL", "SETUSER", "default", "-@write")
    stage.felt("permission")
    scene.name("K04", "incr")


@fault("K05", "no client slot left", scaled=QUICK, runbooks=ONLY)
def no_slot(scene: Scene, *, maxclients: int = 5) -> None:
    """As many clients as the server takes are there already."""
    stage = of(scene).start()
    stage.ask("CONFIG", "SET", "maxclients", maxclients)
    stage.hold(maxclients)
    stage.configure()

    def come_and_go() -> None:
        stage.come_and_go(every=0.5)
        scene.wait_until(stage.lets_in, "a slot to become free")

    scene.then(come_and_go)
    stage.felt("max number of clients")
    scene.name("K05", "max number of clients reached")


@fault("K06", "clients leak", scaled=QUICK, runbooks=ONLY)
def leak(scene: Scene, *, leaked: int = 50, maxclients: int = 60) -> None:
    """A worker opens a client for each report and never closes one."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    stage.ask("CONFIG", "SET", "maxclients", maxclients)
    stage.hold(leaked, name="report-worker")
    scene.then(stage.stir)
    scene.grow_older_than(scene.threshold("leak_idle_seconds", 300) + 0.8)
    scene.name("K06", "report-worker", leaked)


@fault("K07", "memory used up", scaled=QUICK, runbooks=ONLY)
def out_of_memory(scene: Scene) -> None:
    """Nobody deletes anything, nothing may be evicted, and now it is full."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    _fill(scene, "noeviction")
    stage.felt("used memory")
    scene.name("K07", "OOM")


@fault("K08", "snapshot fails", scaled=QUICK, runbooks=ONLY)
def snapshot_fails(scene: Scene) -> None:
    """What the snapshot is to be called is the name of a directory."""
    stage = of(scene).start("save 3600 1")
    stage.configure()
    stage.works()
    (stage.directory / "dump.rdb").mkdir()
    (stage.directory / "dump.rdb" / "x").touch()
    _save(scene)
    scene.name("K08", stage.directory)


@fault("K08:full", "disk of the snapshot is full", scaled=QUICK, runbooks=ONLY, needs=(machine.mounts,))
def snapshot_disk_full(scene: Scene) -> None:
    """The filesystem that it saves to has no room left."""
    import subprocess

    stage = of(scene)
    stage.directory.mkdir(mode=0o700)
    subprocess.run(
        [str(find_program("mount")), "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(stage.directory)], check=True
    )
    scene.undo(lambda: subprocess.run([str(find_program("umount")), "-l", str(stage.directory)], check=True))
    stage.start("save 3600 1")
    stage.configure()
    stage.works()
    stage.ask("SET", "ballast", "x" * 1_500_000)
    stage.ask("CONFIG", "SET", "rdbcompression", "no")
    with (stage.directory / "core").open("wb") as file:
        file.write(b"x" * 1_200_000)
    _save(scene)
    scene.name("K08", stage.directory)


@fault("K09", "Redis is a replica now", scaled=QUICK, runbooks=ONLY)
def replica(scene: Scene) -> None:
    """After a failover the application still talks to the old master."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    stage.ask("REPLICAOF", "127.0.0.1", scene.production.closed_port())
    stage.felt("read only replica")
    scene.name("K09", "slave")


@fault("K10", "Redis loads its data", scaled=QUICK, runbooks=ONLY)
def loading(scene: Scene) -> None:
    """It was restarted and reads a snapshot that takes its time."""
    stage = of(scene).start()
    stage.ask("CONFIG", "SET", "rdbcompression", "no")
    stage.ask("DEBUG", "POPULATE", 120, "key", 1_000_000)
    stage.ask("SAVE")
    # It looks up from loading every 2 MB: four times a second.
    stage.restart("key-load-delay 120000")
    stage.configure()
    stage.felt("loading the dataset")
    scene.name("K10", "LOADING")


@fault("K11", "script does not end", scaled=QUICK, runbooks=ONLY)
def endless_script(scene: Scene) -> None:
    """A script runs in a circle; after lua-time-limit everybody else is answered BUSY."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    stage.send("EVAL", "while true do end", 0)
    stage.felt("busy running a script|BUSY")
    scene.name("K11", "BUSY")


@fault("K12", "Redis is stopped", scaled=QUICK, runbooks=ONLY)
def stopped(scene: Scene) -> None:
    """Somebody stopped the process (SIGSTOP): the kernel accepts connections for it, and nothing is answered."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    stage.signal(signal.SIGSTOP)
    stage.felt("[Tt]ime")
    scene.name("K12", stage.pid, "stopped")


@fault("K12:blocked", "a command keeps Redis", scaled=QUICK, runbooks=ONLY)
def blocked(scene: Scene) -> None:
    """One command takes for ever, and everybody waits for it."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    stage.send("DEBUG", "SLEEP", 60)
    stage.felt("[Tt]ime")
    scene.name("K12", "silent")


@fault("K13", "clients are paused", scaled=QUICK, runbooks=ONLY)
def paused(scene: Scene) -> None:
    """Somebody paused all clients for an upgrade."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    stage.ask("CLIENT", "PAUSE", 120_000)
    stage.felt("[Tt]ime")
    scene.name("K13", "PAUSED")


@fault("K13:writes", "writes are paused", scaled=QUICK, runbooks=ONLY)
def writes_paused(scene: Scene) -> None:
    """Somebody paused writes alone: PING is answered, and what writes waits."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    stage.ask("CLIENT", "PAUSE", 120_000, "WRITE")
    stage.felt("[Tt]ime")
    scene.name("K13", "held back")


@fault("K14", "TLS on one side only", scaled=QUICK, runbooks=ONLY)
def tls_on_one_side(scene: Scene) -> None:
    """The server was put behind TLS; the URL still says redis://."""
    stage = of(scene)
    _tls_front(scene, stage.port)
    stage.configure()
    stage.felt("[Cc]onnection|reset|closed")
    scene.name("K14", "TLS")


@fault("K16", "jobs are evicted", scaled=QUICK, runbooks=ONLY)
def evicts(scene: Scene) -> None:
    """The queue lives in a cache: it is full, and whatever was not used for longest is thrown away."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    _fill(scene, "allkeys-lru")
    key, count = f"{PREFIX}:{QUEUE}", iter(range(10**9))

    def more() -> None:
        stage.ask("HSET", f"{key}:meta", "version", "bullmq:5.81.5")
        for _ in range(10):
            stage.ask("SET", f"page:{next(count)}", "x" * 20_000)

    stage.again_and_again(more, every=0.1)
    scene.wait_until(lambda: stage.ask("INFO", "stats")["evicted_keys"] > 20, "keys to be evicted")
    scene.name("K16", "allkeys-lru")


@fault("K17", "too few replicas", scaled=QUICK, runbooks=ONLY)
def too_few_replicas(scene: Scene) -> None:
    """Writes want one replica that follows, and the only one is gone."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    stage.ask("CONFIG", "SET", "min-replicas-to-write", 1)
    stage.felt("good replicas|NOREPLICAS")
    scene.name("K17", "0 of 1")


@fault("K18", "cluster is down", scaled=QUICK, runbooks=ONLY)
def cluster_down(scene: Scene) -> None:
    """A node of a cluster that lost its slots."""
    stage = of(scene).start("cluster-enabled yes", "cluster-config-file nodes.conf")
    stage.configure()
    stage.felt("CLUSTERDOWN|not served|[Cc]luster")
    scene.name("K18", "cluster_state:fail")


@fault("K20", "application is lost, Redis is fine", scaled=QUICK, runbooks=ONLY)
def lost_client(scene: Scene) -> None:
    """The application still tries where Redis was before it moved."""
    stage = of(scene).start()
    stage.configure(application=f"redis://:{stage.password}@127.0.0.1:{scene.production.closed_port()}/0")
    stage.felt("111|refused")
    scene.name("K20", "111")


@fault("K21", "clients that do not read are closed", scaled=QUICK, runbooks=ONLY)
def output_buffers(scene: Scene) -> None:
    """An export asks for more than it reads, and is closed for it."""
    stage = of(scene).start()
    stage.configure()
    stage.works()
    stage.ask("SET", "export", "x" * 1_000_000)
    stage.ask("CONFIG", "SET", "client-output-buffer-limit", "normal 8mb 4mb 1")

    def export() -> None:
        sock = stage.send("PING", name="export")
        for _ in range(40):
            sock.sendall(b"GET export\r\n")

    stage.again_and_again(export, every=0.4)
    log = stage.directory / "log"
    scene.wait_until(lambda: "output buffer limits" in log.read_text(errors="replace"), "a client to be closed")
    scene.name("K21", "export")


@handicap("no_info", "the diagnosing user may neither INFO nor CONFIG", tried_with="K07", blinds=False,
          unknown=("redis",))  # fmt: skip
def no_info(scene: Scene) -> None:
    """What managed services forbid, and more: the application's log is the only witness left."""
    _narrow(scene, "-info", "-config", "-client", "+client|setname", "-slowlog", "-acl")


@handicap("no_client_list", "the diagnosing user may not list clients", tried_with="K06", unknown=("redis",))
def no_client_list(scene: Scene) -> None:
    """Slots are short, and whose they are cannot be seen."""
    _narrow(scene, "-client", "+client|setname")


def _narrow(scene: Scene, *rules: str) -> None:
    stage = of(scene)
    stage.ask("ACL", "SETUSER", "watcher", "on", f">{stage.password}", "~*", "&*", "+@all", *rules)
    scene.settings["redis"]["url"] = f"redis://watcher:{stage.password}@127.0.0.1:{stage.port}/0"


def _ask_all(scene: Scene, *commands: tuple[Any, ...]) -> None:
    """Several commands on one connection, which outlives what they do to others."""
    import redis

    with redis.Redis.from_url(
        of(scene).url, decode_responses=True, protocol=2, single_connection_client=True
    ) as client:
        for command in commands:
            client.execute_command(*command)


def _fill(scene: Scene, policy: str) -> None:
    """Write until the memory limit, which is a little above what is used now, is reached; without eviction, go on.

    Each connection takes memory as well: what tops up is one that stays, so that others come to a full server.
    """
    import redis

    stage = of(scene)
    stage.ask("CONFIG", "SET", "maxmemory-policy", policy)
    stage.ask("CONFIG", "SET", "maxmemory", stage.ask("INFO", "memory")["used_memory"] + 2_000_000)
    count = iter(range(10**9))
    client = redis.Redis.from_url(stage.url, single_connection_client=True)
    scene.undo(client.close)

    def more(*sizes: int) -> None:
        # A large value is refused while a small one still fits.
        for size in sizes:
            with contextlib.suppress(redis.ResponseError):
                for _ in range(200):
                    client.set(f"blob:{next(count)}", "x" * size)

    more(50_000, 5_000, 500, 50)
    if policy == "noeviction":
        stage.again_and_again(lambda: more(500, 50), every=0.1)


def _save(scene: Scene) -> None:
    """A snapshot that fails, and is felt."""
    stage = of(scene)
    stage.ask("BGSAVE")
    scene.wait_until(
        lambda: stage.ask("INFO", "persistence")["rdb_last_bgsave_status"] == "err", "the snapshot to fail"
    )
    stage.felt("MISCONF|disk|snapshots")


def _tls_front(scene: Scene, port: int) -> None:
    """Something that speaks TLS on that port, and hangs up on whoever does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(scene.sandbox.directory))
    listener = socket.create_server(("127.0.0.1", port), backlog=50)
    scene.undo(listener.close)

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plain.settimeout(1)
            try:
                context.wrap_socket(plain, server_side=True).close()
            except OSError:
                plain.close()

    threading.Thread(target=serve, name="tls-front", daemon=True).start()


def _certificate(directory: Path) -> Path:
    """A key and a certificate of its own, for a day."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = directory / "other-redis.pem"
    file.touch(mode=0o600)
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file

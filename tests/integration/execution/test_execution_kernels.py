"""Warm kernels: one for each run, clean, watched, replaced by cold ones when need be, gone when the pool is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from runbook.execution import zygote_main
from runbook.execution.kernel import Kernel, KernelFailed, private_directory, python_spec
from runbook.execution.kernels import KernelPool
from runbook.execution.provisioner import NAME, ZygoteProvisioner
from runbook.execution.zygote import Zygote, ZygoteUnavailable
from tests.integration.execution.toys import CONCLUDE, READ, Bench, executed
from tests.support import wait_until

SECRETS = {
    "RUNBOOK_STORE__URL": "postgresql://store:storepw-1@db/store",
    "RUNBOOK_POSTGRES__ACTION_DSN": "postgresql://oncall:actionpw-1@db/app",
    "AWS_SECRET_ACCESS_KEY": "awskey-canary-1",
    "SOMETHING_ELSE": "other-canary-1",
}


def running(pid: int) -> bool:
    """Whether a process of that number exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def zygote_of(pool: KernelPool) -> Zygote:
    assert pool._zygote is not None
    return pool._zygote


@pytest.fixture
def own_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelPool]:
    """A pool of one, whose temporary files are all below ``tmp_path / 't'``, and whose zygote others know."""
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    with KernelPool(1, nursery=private_directory()) as kernels:
        assert kernels.wait_ready(60), kernels.trouble
        yield kernels


def told_environment(kernel: Kernel, path: Path) -> dict[str, dict[str, str]]:
    """What the kernel's Python and the system say of its environment."""
    kernel.ask(
        "import json, os, pathlib\n"
        "raw = pathlib.Path('/proc/self/environ').read_bytes().decode().split('\\0')\n"
        "system = dict(item.split('=', 1) for item in raw if item)\n"
        f"pathlib.Path({str(path)!r}).write_text(json.dumps({{'python': dict(os.environ), 'system': system}}))"
    )
    found: dict[str, dict[str, str]] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("kind", ["warm", "cold"])
def test_nothing_of_the_drivers_environment_reaches_a_kernel_but_what_is_allowed(kind: str, tmp_path: Path) -> None:
    environ = {**os.environ, **SECRETS, "LC_ALL": "C.UTF-8", "TZ": "Europe/Vienna"}
    if kind == "warm":
        with KernelPool(1, environ=environ) as pool:
            assert pool.wait_ready(60), pool.trouble
            with pool.lease() as kernel:
                assert kernel.warm
                found = told_environment(kernel, tmp_path / "env.json")
    else:
        with Kernel.cold(environ).connect() as kernel:
            found = told_environment(kernel, tmp_path / "env.json")
    for view in found.values():
        assert not set(SECRETS) & set(view)
        assert not any(name.startswith("RUNBOOK_") for name in view)
        assert not any(value in str(view) for value in SECRETS.values())
        assert (view["TZ"], view["LC_ALL"]) == ("Europe/Vienna", "C.UTF-8")


def test_the_zygote_has_one_native_thread_and_no_secret(pool: KernelPool) -> None:
    zygote = zygote_of(pool)
    assert len(list(Path(f"/proc/{zygote.pid}/task").iterdir())) == 1
    assert "RUNBOOK_" not in Path(f"/proc/{zygote.pid}/environ").read_bytes().decode()


def test_a_zygote_that_has_native_threads_refuses_to_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "threaded_library.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    starter = tmp_path / "sitecustomize.py"
    starter.write_text("import threaded_library\n")
    path = f"{tmp_path}:{Path(zygote_main.__file__).parents[2]}"
    directory = tmp_path / "z"
    directory.mkdir(mode=0o700)
    with pytest.raises(ZygoteUnavailable, match="native threads"):
        Zygote(directory, {**os.environ, "PYTHONPATH": path})


def test_a_kernel_is_handed_out_once(pool: KernelPool) -> None:
    pids = []
    for _ in range(4):
        with pool.lease() as kernel:
            assert kernel.warm
            kernel.ask("assert 'mark' not in globals(); mark = 1")
            pids.append(kernel.pid)
    assert len(set(pids)) == 4
    wait_until(lambda: not any(map(running, pids)), what="used kernels to end")


def test_a_forked_kernel_has_its_own_random_numbers_and_keeps_no_history(pool: KernelPool, tmp_path: Path) -> None:
    drawn = []
    for number in range(2):
        with pool.lease() as kernel:
            path = tmp_path / f"{number}.json"
            kernel.ask(
                "import json, pathlib, random, numpy\n"
                "values = [random.random(), float(numpy.random.random())]\n"
                f"pathlib.Path({str(path)!r}).write_text(json.dumps(values))"
            )
            drawn.append(json.loads(path.read_text()))
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] != drawn[1][1]
    assert not list(zygote_of(pool).socket.parent.rglob("history.sqlite"))


def test_a_kernel_that_died_or_hangs_while_it_waited_is_not_handed_out(own_pool: KernelPool) -> None:
    waiting = own_pool._ready[0].pid
    os.kill(waiting, signal.SIGSTOP)
    with own_pool.lease() as kernel:
        assert kernel.warm
        assert kernel.pid != waiting
    wait_until(lambda: own_pool.ready == 1)
    waiting = own_pool._ready[0].pid
    os.kill(waiting, signal.SIGKILL)
    wait_until(lambda: not running(waiting))
    with own_pool.lease() as kernel:
        assert kernel.pid != waiting


def test_when_the_zygote_dies_the_next_run_gets_a_cold_kernel_that_says_why_and_the_pool_recovers(
    own_pool: KernelPool, bench: Bench
) -> None:
    waiting, first = own_pool._ready[0].pid, zygote_of(own_pool)
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not running(waiting), what="the zygote's kernels to end with it")
    with own_pool.lease() as kernel:
        assert not kernel.warm
        assert "zygote" in kernel.why_cold
    assert bench.run(READ, CONCLUDE, pool=own_pool)["state"] == "succeeded"
    wait_until(lambda: own_pool.ready == 1, seconds=60, what="a new zygote")
    with own_pool.lease() as kernel:
        assert kernel.warm
    # Others, who were told once where it listens, find the new one there.
    assert zygote_of(own_pool).pid != first.pid
    assert zygote_of(own_pool).socket == first.socket
    assert stat.S_ISSOCK(first.socket.stat().st_mode)


def test_a_zygote_that_cannot_start_means_cold_kernels(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    def broken(*_: Any, **__: Any) -> Zygote:
        raise ZygoteUnavailable("the zygote did not start: no room")

    monkeypatch.setattr("runbook.execution.kernels.Zygote", broken)
    with KernelPool(1) as pool:
        assert bench.run(READ, CONCLUDE, pool=pool)["state"] == "succeeded"
        assert pool.trouble == "the zygote did not start: no room"


def test_closing_the_pool_leaves_no_process_and_no_file(tmp_path: Path, own_pool: KernelPool) -> None:
    leased = own_pool.lease()
    wait_until(lambda: own_pool.ready == 1)
    leased.ask("import subprocess; child = subprocess.Popen(['sleep', '600'])")
    sleeping = subprocess.run(["pgrep", "-P", str(leased.pid)], capture_output=True, text=True, check=True)
    pids = [zygote_of(own_pool).pid, own_pool._ready[0].pid, leased.pid, int(sleeping.stdout)]

    async def as_a_service_does() -> None:
        own_pool.close()

    asyncio.run(as_a_service_does())
    assert not any(map(running, pids))
    leased.close()
    assert list((tmp_path / "t").iterdir()) == []
    with pytest.raises(KernelFailed, match="closed"):
        own_pool.lease()


def test_a_cold_kernel_leaves_no_process_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Kernel.cold().connect() as kernel:
        pid = kernel.pid
        assert running(pid)
    assert not running(pid)
    assert list(tmp_path.iterdir()) == []


DRIVER = """
import json, sys, time
from runbook.execution.kernel import Kernel
from runbook.execution.kernels import KernelPool
pool = KernelPool(1)
assert pool.wait_ready(60), pool.trouble
leased = pool.lease()
pool.wait_ready(60)
cold = Kernel.cold().connect()
print(json.dumps([pool._zygote.pid, pool._ready[0].pid, leased.pid, cold.pid]), flush=True)
time.sleep(600)
"""


def test_a_driver_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True, env=env) as driver:
        assert driver.stdout is not None
        pids = json.loads(driver.stdout.readline())
        assert all(map(running, pids))
        driver.kill()
    wait_until(lambda: not any(map(running, pids)), what="zygote and kernels to end")
    wait_until(lambda: not list(tmp_path.glob("*/zygote.sock")), what="the zygote's directory to go")


def test_an_interrupt_from_the_terminal_ends_the_run_with_a_report_and_orphans_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    bench.put(READ, ("Waiting", "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)"), CONCLUDE)
    script = (
        "import json, os, sys\n"
        "from pathlib import Path\n"
        "from runbook.execution.execute import RunRequest, execute\n"
        "from runbook.reporting.archive import Archive\n"
        "from runbook.settings import Settings\n"
        "tell = lambda p: print(p.title, flush=True)\n"
        "result = execute(RunRequest(run_id='r1', runbook='toy', parameters={}), Settings(),\n"
        f"                 archive=Archive(Path({str(tmp_path / 'archive')!r})), progress=tell)\n"
        "print(json.dumps([result['state'], result['error']]), flush=True)\n"
    )
    # As from a terminal: what was started in a shell's background ignores interrupts, and so would its children.
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            if line.strip() == "Waiting":
                break
        children = subprocess.run(["pgrep", "-P", str(driver.pid)], capture_output=True, text=True, check=True)
        kernels = [int(pid) for pid in children.stdout.split()]
        assert kernels
        # What a terminal does on Ctrl-C. Python drops an interrupt that falls into a finalizer; a person presses again.
        again = threading.Event()
        presses = threading.Thread(target=_press, args=(driver.pid, again), daemon=True)
        presses.start()
        state, error = json.loads(next(line for line in driver.stdout if line.startswith('["')))
        again.set()
        presses.join()
    assert (state, error["name"], error["cell"]) == ("interrupted", "Interrupted", "5 · Waiting")
    wait_until(lambda: not any(map(running, kernels)))


def _press(group: int, enough: threading.Event) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        while not enough.is_set():
            os.killpg(group, signal.SIGINT)
            enough.wait(15)


class _Specs(KernelSpecManager):
    spec: KernelSpec

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return self.spec


def test_the_provisioner_is_found_by_its_entry_point_and_forks_for_any_jupyter_client(
    pool: KernelPool, tmp_path: Path
) -> None:
    specs = _Specs()
    specs.spec = python_spec(zygote_of(pool).socket)
    manager = AsyncKernelManager(kernel_spec_manager=specs, transport="ipc", ip=str(tmp_path / "k"))
    kernel = Kernel(manager, warm=True)
    with kernel:
        kernel.run(manager.start_kernel(env={"PATH": "/usr/bin", "IPYTHONDIR": str(tmp_path)}))
        assert isinstance(manager.provisioner, ZygoteProvisioner)
        assert os.getpgid(kernel.connect().pid) == kernel.pid
        assert "zygote" in Path(f"/proc/{kernel.pid}/cmdline").read_text()


def test_the_provisioner_starts_a_local_kernel_where_no_zygote_is_configured(tmp_path: Path) -> None:
    specs = _Specs()
    specs.spec = python_spec()
    specs.spec.metadata = {"kernel_provisioner": {"provisioner_name": NAME}}
    manager = AsyncKernelManager(kernel_spec_manager=specs, transport="ipc", ip=str(tmp_path / "k"))
    with Kernel(manager, warm=False) as kernel:
        kernel.run(manager.start_kernel())
        assert isinstance(manager.provisioner, ZygoteProvisioner)
        assert kernel.connect().answers()
        assert "ipykernel_launcher" in Path(f"/proc/{kernel.pid}/cmdline").read_text()


def test_a_lease_that_the_kernel_refuses_fails_the_run_without_telling_what_was_in_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "runbook.execution.execute._Run._lease", lambda *_: "secret = 'canary-77'; raise ValueError('no')"
    )
    result = bench.run(READ, CONCLUDE)
    assert result["state"] == "failed"
    assert result["error"]["name"] == "KernelFailed"
    assert "ValueError: no" in result["error"]["message"]
    assert "canary-77" not in str(result)
    assert len(executed(result).cells) == 5

"""A pool of warm kernels: forked by the zygote, connected, handed out once each.

Where there is no zygote to be had a kernel is started cold, and says why. Closing the pool leaves no process and no
file; neither does killing the process that holds it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import structlog

from runbook.execution.environment import kernel_environment
from runbook.execution.kernel import Kernel, KernelFailed, private_directory, python_spec
from runbook.execution.zygote import Zygote, ZygoteUnavailable

log = structlog.get_logger(__name__)

GRACE_SECONDS = 3.0
"""How long a refill waits for the runs that were just handed a kernel: it would take their second core from them."""
CHECK_SECONDS = 5.0
STARTING = "the zygote is starting"
LONGEST_PAUSE_SECONDS = 60.0


class KernelPool:
    """Keeps ``size`` kernels ready, in the background.

    Parameters
    ----------
    size
        How many kernels wait, each a forked process of which most memory is shared.
    environ
        The driver's environment; what of it a kernel gets is decided by :mod:`runbook.execution.environment`.
    nursery
        A private directory in which the zygote listens, for others who have kernels forked by it; default: a new one.
    """

    def __init__(self, size: int = 2, *, environ: Mapping[str, str] | None = None, nursery: Path | None = None) -> None:
        if size < 1:
            raise ValueError(f"a pool of {size} kernels")
        self.size = size
        self._environ = dict(os.environ if environ is None else environ)
        self._changed = threading.Condition()
        self._ready: deque[Kernel] = deque()
        self._leased: set[Kernel] = set()
        self._waiting = 0
        self._last_lease = 0.0
        self._closed = False
        self._trouble = STARTING
        self._zygote: Zygote | None = None
        self._directory: Path | None = None
        self._nursery = nursery
        self._numbers = itertools.count(1)
        self._keeper = threading.Thread(target=self._keep, name="kernel-pool", daemon=True)
        self._keeper.start()

    def __enter__(self) -> KernelPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def ready(self) -> int:
        """How many kernels wait, connected."""
        return len(self._ready)

    @property
    def trouble(self) -> str:
        """Why there is no zygote at the moment; empty when there is one."""
        return self._trouble

    def wait_ready(self, seconds: float = 60.0) -> bool:
        """Whether the pool is full, waiting for it so long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or len(self._ready) >= self.size, seconds)

    def lease(self, patience_seconds: float = 30.0) -> Kernel:
        """A connected kernel that nobody had before and nobody gets after; close it when the run is over.

        Waits while one is being forked. While there is no zygote, which takes longer to start than a kernel does, or
        after ``patience_seconds``, it is a cold one whose :attr:`~runbook.execution.kernel.Kernel.why_cold` says so.

        Raises
        ------
        KernelFailed
            Not even a cold kernel starts, or the pool is closed.
        """
        give_up_at = time.monotonic() + patience_seconds
        while True:
            kernel = self._next(give_up_at)
            if kernel is None:
                break
            if kernel.answers():
                return kernel
            log.warning("kernel_discarded", pid=kernel.pid, reason=kernel.how_it_ended())
            kernel.close()
        if self._closed:
            raise KernelFailed("the kernel pool is closed")
        why = self._trouble or f"no warm kernel within {patience_seconds:g} s"
        log.warning("kernel_cold", reason=why)
        return Kernel.cold(self._environ, why=why).connect()

    def close(self) -> None:
        """Kill every kernel, those on lease too, and the zygote. Returns when they are gone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._keeper.join()
        for kernel in self._ready:
            kernel.close()
        self._ready.clear()
        self._stop_zygote()

    def _next(self, give_up_at: float) -> Kernel | None:
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            try:
                while not self._ready and not self._closed and not self._trouble:
                    if not self._changed.wait(give_up_at - time.monotonic()):
                        return None
                if not self._ready:
                    return None
                kernel = self._ready.popleft()
                kernel.on_close = self._returned
                self._leased.add(kernel)
                self._last_lease = time.monotonic()
                return kernel
            finally:
                self._waiting -= 1
                self._changed.notify_all()

    def _returned(self, kernel: Kernel) -> None:
        with self._changed:
            self._leased.discard(kernel)
            self._changed.notify_all()

    def _keep(self) -> None:
        """The keeper's thread: fork what is missing, bury what died waiting, start the zygote again when it ended."""
        pause = 0.5
        while True:
            with self._changed:
                while not self._closed and not self._missing():
                    self._changed.wait(self._next_look())
                    self._discard_dead()
                if self._closed:
                    return
            try:
                self._fork_one()
            except (ZygoteUnavailable, KernelFailed, OSError, RuntimeError) as error:
                log.warning("kernel_pool_trouble", reason=str(error))
                with self._changed:
                    self._trouble = str(error)
                    self._changed.notify_all()
                self._stop_zygote()
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, pause)
                pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
            else:
                pause = 0.5

    def _missing(self) -> bool:
        """Whether to fork now: at once when none is left or somebody waits, else when the runs are done or going."""
        if len(self._ready) >= self.size:
            return False
        urgent = not self._ready or self._waiting or not self._leased
        return bool(urgent) or time.monotonic() - self._last_lease >= GRACE_SECONDS

    def _next_look(self) -> float:
        return GRACE_SECONDS if len(self._ready) < self.size else CHECK_SECONDS

    def _discard_dead(self) -> None:
        dead = [kernel for kernel in self._ready if not kernel.alive()]
        for kernel in dead:
            log.warning("kernel_discarded", reason=kernel.how_it_ended())
            self._ready.remove(kernel)
            kernel.close()

    def _fork_one(self) -> None:
        if self._zygote is None or self._directory is None or not self._zygote.alive():
            with self._changed:
                self._trouble = self._trouble or STARTING
                self._changed.notify_all()
            self._stop_zygote()
            self._directory = self._fresh_directory()
            self._zygote = Zygote(self._directory, self._environment(self._directory))
        stem = self._directory / f"kernel-{next(self._numbers)}"
        env = self._environment(self._directory)
        kernel = Kernel.launch(python_spec(self._zygote.socket), env, stem, warm=True)
        try:
            kernel.connect()
            # Once more in the kernel itself: it then has its own copy of the pages that the first cells write to.
            kernel.ask("from runbook.execution.rehearsal import rehearse; rehearse(); del rehearse")
        except BaseException:
            kernel.close()
            raise
        with self._changed:
            self._trouble = ""
            self._ready.append(kernel)
            self._changed.notify_all()

    def _fresh_directory(self) -> Path:
        if self._nursery is None:
            return private_directory()
        self._nursery.mkdir(mode=0o700, exist_ok=True)
        return self._nursery

    def _environment(self, directory: Path) -> dict[str, str]:
        return kernel_environment(self._environ, ipython_dir=directory / "ipython")

    def _stop_zygote(self) -> None:
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

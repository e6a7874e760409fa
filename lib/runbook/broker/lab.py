"""JupyterLab as a process beside the broker: on loopback, with a token of its own, and with little of our environment.

What the environment of the broker holds (acting credentials, the URL of the store) reaches neither Lab nor a kernel.
Kernels are forked by a zygote that has imported what a runbook needs, so that the first cell runs at once.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from jupyter_core.paths import jupyter_config_dir

from runbook.embedded import die_with_parent
from runbook.errors import RunbookError
from runbook.execution import provisioner
from runbook.execution.environment import kernel_environment

_START_SECONDS, _END_SECONDS = 60.0, 15.0
AUTOSAVE_SECONDS = 10
"""JupyterLab saves so often: publishing takes what is saved."""

_FOR_A_DESKTOP = frozenset({
    "USER", "LOGNAME", "SHELL", "TERM", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "BROWSER",
    "DBUS_SESSION_BUS_ADDRESS", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "RUNBOOK_NOTEBOOKS", "RUNBOOK_DATA_DIR",
})  # fmt: skip
"""What Lab needs besides what a kernel does: to open a browser, to offer a terminal, to find its own files."""


class LabFailed(RunbookError):
    """JupyterLab did not start."""


@dataclass
class Lab:
    """One JupyterLab.

    Parameters
    ----------
    root
        The directory that it shows.
    scratch
        A private directory for its configuration, removed by the caller.
    kernel
        What kernels are told besides: where the broker is.
    """

    root: Path
    scratch: Path
    kernel: Mapping[str, str]
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    process: subprocess.Popen[bytes] | None = None

    def start(self, *, zygote: Path, open_at: str = "", browser: bool = True) -> None:
        """Start the process, which ends with the thread that calls this."""
        self._configure(zygote)
        options = {
            "ServerApp.ip": "127.0.0.1", "ServerApp.port": self.port, "ServerApp.port_retries": 0,
            "ServerApp.root_dir": self.root, "ServerApp.open_browser": browser, "ServerApp.allow_remote_access": False,
            "LabApp.default_url": f"/lab/tree/{quote(open_at)}" if open_at else "/lab",
            "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate", "LabApp.news_url": "None",
            "LabApp.extension_manager": "readonly",
        }  # fmt: skip
        argv = [sys.executable, "-P", "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*argv, "--allow-root"] if os.geteuid() == 0 else argv,
                env=self.environment(os.environ), cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                # Not our terminal's Ctrl-C: we end it when we end.
                start_new_session=True, preexec_fn=die_with_parent(signal.SIGTERM),
            )  # fmt: skip

    def wait_until_it_answers(self) -> None:
        """Return when it serves.

        Raises
        ------
        LabFailed
            It ended, or did not answer in time; says what it said last.
        """
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and not self.ended():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.end()
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise LabFailed(f"JupyterLab did not start: {said[-1] if said else 'it said nothing'}",
                        remedy="Look whether python -m jupyterlab starts")  # fmt: skip

    @property
    def log(self) -> Path:
        """What it says."""
        return self.scratch / "lab.log"

    def url(self, path: str = "") -> str:
        """Where a person opens it, the token included."""
        return f"http://127.0.0.1:{self.port}/lab{f'/tree/{quote(path)}' if path else ''}?token={self.token}"

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The whole environment of Lab, and so of its kernels and terminals."""
        own = Path(jupyter_config_dir()) / "lab"
        kept = {name: value for name, value in environ.items() if name in _FOR_A_DESKTOP}
        shared = kernel_environment(environ, ipython_dir=self.scratch / "ipython")
        # The person's own themes and shortcuts, and none of their servers' settings, which may listen elsewhere.
        jupyter = {
            "JUPYTER_CONFIG_DIR": str(self.scratch / "config"),
            "JUPYTER_PATH": str(self.scratch / "share"),
            "JUPYTERLAB_SETTINGS_DIR": environ.get("JUPYTERLAB_SETTINGS_DIR") or str(own / "user-settings"),
            "JUPYTERLAB_WORKSPACES_DIR": environ.get("JUPYTERLAB_WORKSPACES_DIR") or str(own / "workspaces"),
        }
        return {**kept, **shared, **jupyter, **self.kernel}

    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self.process is None or self.process.poll() is not None

    def end(self) -> None:
        """End it and its kernels; does nothing when it has ended."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _configure(self, zygote: Path) -> None:
        config, spec = self.scratch / "config", self.scratch / "share" / "kernels" / "python3"
        served = {"jpserver_extensions": {"runbook.broker.opener": True}}
        _write(config / "jupyter_server_config.json",
               {"IdentityProvider": {"token": self.token}, "ServerApp": served})  # fmt: skip
        overrides = {
            "@jupyterlab/docmanager-extension:plugin": {"autosaveInterval": AUTOSAVE_SECONDS},
            "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
        }
        _write(config / "labconfig" / "default_setting_overrides.json", overrides)
        provisioned = {"provisioner_name": provisioner.NAME, "config": {"socket": str(zygote), "or_cold": True}}
        described = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "Python 3", "language": "python", "metadata": {"kernel_provisioner": provisioned},
        }  # fmt: skip
        _write(spec / "kernel.json", described)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(content), encoding="utf-8")

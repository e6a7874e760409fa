"""The Jupyter kernel provisioner that takes its process from the zygote.

Registered as ``runbook-zygote``; a kernelspec selects it by ``metadata.kernel_provisioner`` with the zygote's socket
in ``config.socket``. Without a socket it is the local provisioner, so such a kernelspec also works where no zygote
runs.
"""

from __future__ import annotations

import os
from typing import Any

from jupyter_client.provisioning import LocalProvisioner
from traitlets import Bool, Unicode

from runbook.execution.zygote import ZygoteUnavailable, fork

NAME = "runbook-zygote"
"""Name of the entry point in the group ``jupyter_client.kernel_provisioners``."""


class ZygoteProvisioner(LocalProvisioner):
    """Launches kernels by fork; connection file and lifecycle stay as the local provisioner has them."""

    socket = Unicode("", config=True, help="Unix socket of the zygote; empty: start the process locally.")

    or_cold = Bool(False, config=True, help="Start the process locally when nobody listens at the socket (yet).")

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Fork a kernel and return its connection information.

        Raises
        ------
        ZygoteUnavailable
            Nobody listens at :attr:`socket`, and :attr:`or_cold` is not set.
        """
        if not self.socket:
            return await super().launch_kernel(cmd, **kwargs)
        argv = cmd[cmd.index("ipykernel_launcher") + 1 :]
        cwd = str(kwargs.get("cwd") or os.getcwd())  # noqa: PTH109 - what the local provisioner's Popen would use
        try:
            self.process = fork(self.socket, argv, kwargs["env"], cwd)
        except ZygoteUnavailable:
            if not self.or_cold:
                raise
            self.socket = ""
            return await super().launch_kernel(cmd, **kwargs)
        self.pid = self.pgid = self.process.pid
        self.cwd = cwd
        return self.connection_info

    async def send_signal(self, signum: int) -> None:
        """Signal the kernel process itself.

        Its group is reached by its number only, which is not safe once the process has ended; the zygote, whose
        child it is, kills the group then.
        """
        if not self.socket:
            await super().send_signal(signum)
        elif self.process:
            self.process.send_signal(signum)

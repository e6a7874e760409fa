"""OpenSSH servers on loopback, each with keys of its own, and the home directory of a person who may log in."""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path

from tests.support import free_port, require_program, wait_until


class Sshd:
    """One "host": a server on a port of its own that lets this user in with the key of ``home``."""

    def __init__(self, directory: Path, home: Home) -> None:
        self.program = require_program("sshd", package="openssh-server")
        self.port = free_port()
        self.address = f"{getpass.getuser()}@127.0.0.1:{self.port}"
        self.directory = directory
        directory.mkdir()
        self.key = keygen(directory / "host_key")
        (directory / "authorized_keys").write_text(home.key)
        (directory / "config").write_text(
            f"""
            Port {self.port}
            ListenAddress 127.0.0.1
            HostKey {directory}/host_key
            PidFile {directory}/pid
            AuthorizedKeysFile {directory}/authorized_keys
            StrictModes no
            UsePAM no
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            PermitRootLogin prohibit-password
            """
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Sshd:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as the package's service does it
        argv = [self.program, "-D", "-e", "-f", str(self.directory / "config")]
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)
        wait_until((self.directory / "pid").exists, what=f"sshd: {(self.directory / 'log').read_text()}")
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


class Home:
    """A home directory with an OpenSSH configuration, a key and known hosts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / ".ssh").mkdir(mode=0o700)
        self.key = keygen(directory / ".ssh" / "key")
        self.configure("")

    def configure(self, more: str) -> None:
        """Write the configuration, with ``more`` before what every host gets."""
        text = f"{more}\nHost *\n  IdentityFile {self.directory}/.ssh/key\n  IdentitiesOnly yes\n"
        (self.directory / ".ssh" / "config").write_text(text)

    def trust(self, *servers: Sshd, key: str | None = None) -> None:
        """Know these servers and no others, by their own keys or by another."""
        lines = [f"[127.0.0.1]:{server.port} {key or server.key}" for server in servers]
        (self.directory / ".ssh" / "known_hosts").write_text("".join(lines))


def keygen(path: Path) -> str:
    """Make a key pair; the public key, as one line."""
    program = require_program("ssh-keygen", package="openssh-client")
    subprocess.run([program, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()

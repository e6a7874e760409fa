"""What a kernel may know of the process that starts it: an allow-list of environment variables.

A kernel gets its credentials by a lease, over its private channel, and only the diagnosing ones. Everything else that
the driver's environment holds (store URL, action DSN, tokens, other programs' secrets) must not reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import runbook

ALLOWED = frozenset(
    {
        "PATH",
        "HOME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONUTF8",
        "PYTHONHASHSEED",
        "PYTHONIOENCODING",
        "PYTHONNOUSERSITE",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPYCACHEPREFIX",
        "MPLCONFIGDIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_RUNTIME_DIR",
        # How vendors and hosts are reached: a proxy, a certificate authority of one's own, an SSH agent.
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "SSH_AUTH_SOCK",
    }
)

#: One run uses one core; native thread pools would also make it unsafe to fork.
SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def kernel_environment(environ: Mapping[str, str], *, ipython_dir: Path) -> dict[str, str]:
    """The whole environment of a kernel, warm or cold.

    Parameters
    ----------
    environ
        The driver's own.
    ipython_dir
        Where IPython keeps its profile: not the user's, whose start-up files would run in every kernel.
    """
    kept = {name: value for name, value in environ.items() if name in ALLOWED or name.startswith("LC_")}
    library = str(Path(runbook.__file__).resolve().parents[1])
    # The kernel imports the runbook package that the driver runs, from wherever that is.
    others = [part for part in kept.get("PYTHONPATH", "").split(":") if part and part != library]
    return {**kept, **SINGLE_THREADED, "PYTHONPATH": ":".join([library, *others]), "IPYTHONDIR": str(ipython_dir)}

"""Client of the simulator's control side: what faults, drills and tests tell the vendors, and ask of them.

It must never be given to the application under diagnosis: who holds its token decides what every vendor says.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from runbook.errors import SandboxError

_SECONDS = 10.0


class Vendors:
    """The vendors of one running simulator.

    Parameters
    ----------
    base_url
        ``http://127.0.0.1:<port>``.
    token
        The one that the simulator was started with.

    Every method raises :class:`~runbook.errors.SandboxError` when the simulator is not there, does not know the
    vendor, or refuses a key or value.
    """

    def __init__(self, base_url: str, token: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token

    def state(self, vendor: str) -> dict[str, Any]:
        """The vendor's facts as JSON values; times are ISO 8601."""
        return cast(dict[str, Any], self._ask("GET", f"/{vendor}"))

    def change(self, vendor: str, **state: Any) -> None:
        """Replace those facts; the others stay. Lists are replaced whole; a ``datetime`` may stand for its text."""
        self._ask("PATCH", f"/{vendor}", state)

    def fail(
        self,
        vendor: str,
        *,
        status: int | None = None,
        headers: dict[str, str] | None = None,
        body: Any = None,
        delay_seconds: float = 0,
        kind: str | None = None,
        path: str = "",
        times: int | None = None,
        share: float = 1,
    ) -> None:
        """Answer badly until :meth:`heal`.

        Parameters
        ----------
        status, headers, body
            What to answer; without ``body`` it is the vendor's own for that status.
        delay_seconds
            Wait before answering; alone, the answer itself is the ordinary one.
        kind
            ``html`` (a sign-in page), ``truncated`` (half the ordinary body), ``redirect`` (to another host),
            ``huge`` (50 MB) or ``silence`` (never answers).
        path
            Only requests whose path contains this.
        times
            Only that many requests, then all is well.
        share
            That share of the requests, 0–1, evenly spread.
        """
        failure = {
            "status": status, "headers": headers or {}, "body": body, "delay_seconds": delay_seconds, "kind": kind,
            "path": path, "times": times, "share": share,
        }  # fmt: skip
        self._ask("PUT", f"/{vendor}/failure", failure)

    def heal(self, vendor: str) -> None:
        """Answer well again; the facts stay as they are."""
        self._ask("DELETE", f"/{vendor}/failure")

    def reset(self, vendor: str = "") -> None:
        """The facts of a good day, no failure, no requests remembered: of one vendor, or of all."""
        self._ask("DELETE", f"/{vendor}" if vendor else "")

    def requests(self, vendor: str) -> list[dict[str, Any]]:
        """The last requests, oldest first: ``{method, path, query, status, at}``; ``status`` is ``None`` while open.

        ``path`` is below the vendor's base, as the real vendor would see it.
        """
        return cast(list[dict[str, Any]], self._ask("GET", f"/{vendor}/requests"))

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        import json

        import httpx

        try:
            answer = httpx.request(
                method,
                f"{self.base_url}/control{path}",
                headers={"Authorization": f"Bearer {self._token}"},
                content=json.dumps(body, default=_json).encode() if body is not None else None,
                timeout=_SECONDS,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            raise SandboxError(
                f"the vendors' simulator does not answer: {error}", remedy="Run: runbook sandbox up"
            ) from None
        if answer.status_code >= 400:
            raise SandboxError(f"the vendors' simulator refuses {method} {path or '/'}: {answer.text}")
        return answer.json() if answer.content else None


def _json(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"a {type(value).__name__} has no place in a vendor's state")

"""The control side: what :mod:`runbook.sandbox.vendors.control` asks for, one vendor at a time.

Whoever gets here has shown the simulator's own token already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from runbook.sandbox.vendors.base import Endpoint, Route, Vendor, json_object
from runbook.sandbox.vendors.failures import Failure

Act = Callable[[Vendor[Any], dict[str, Any]], Any]
"""Does something to a vendor with a request's body; what it returns is the answer, ``None`` = nothing to say."""


class ControlSide:
    """Reads and changes vendors by name."""

    def __init__(self, vendors: Mapping[str, Vendor[Any]]) -> None:
        self._vendors = vendors

    def routes(self) -> list[Route]:
        """State, failure and requests of one vendor; a good day for one or for all."""
        one = "/control/{vendor}"
        return [
            ("GET", one, self._endpoint(lambda vendor, _: vendor.facts.model_dump(mode="json"))),
            ("PATCH", one, self._endpoint(lambda vendor, body: vendor.change(body))),
            ("DELETE", one, self._endpoint(lambda vendor, _: vendor.reset())),
            ("PUT", f"{one}/failure", self._endpoint(lambda vendor, body: vendor.fail(Failure.model_validate(body)))),
            ("DELETE", f"{one}/failure", self._endpoint(lambda vendor, _: vendor.fail(None))),
            ("GET", f"{one}/requests", self._endpoint(lambda vendor, _: list(vendor.requests))),
            ("DELETE", "/control", self._reset_all),
        ]

    def _endpoint(self, act: Act) -> Endpoint:
        async def answer(request: Request) -> Response:
            vendor = self._vendors.get(request.path_params["vendor"])
            if vendor is None:
                detail = f"no such vendor; known: {', '.join(self._vendors)}"
                return JSONResponse({"detail": detail}, status_code=404)
            try:
                said = act(vendor, await json_object(request))
            except ValidationError as error:
                wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
                return JSONResponse({"detail": "; ".join(wrong)}, status_code=422)
            return Response(status_code=204) if said is None else JSONResponse(said)

        return answer

    async def _reset_all(self, request: Request) -> Response:
        for vendor in self._vendors.values():
            vendor.reset()
        return Response(status_code=204)

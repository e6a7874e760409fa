"""A published specification: which operations there are, and whether a request or an answer fits one of them.

Reads the folder that ``RUNBOOK_CONTRACTS`` names; a test that needs it skips without.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from openapi_schema_validator import OAS30Validator, OAS31Validator, oas30_format_checker, oas31_format_checker

from tests.support import missing

_METHODS = ("get", "post", "put", "patch", "delete")


class Specification:
    """One OpenAPI 3 document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        new = document["openapi"].startswith("3.1")
        self._validator = OAS31Validator if new else OAS30Validator
        self._formats = oas31_format_checker if new else oas30_format_checker

    @property
    def operations(self) -> list[tuple[str, str]]:
        """``(METHOD, path)`` of each operation."""
        return [(m.upper(), path) for path, item in self.document["paths"].items() for m in item if m in _METHODS]

    def find(self, method: str, path: str) -> str | None:
        """The path template that a request's path meets; plain words go before parameters."""
        fitting = [template for m, template in self.operations if m == method and _pattern(template).fullmatch(path)]
        return min(fitting, key=lambda template: template.count("{"), default=None)

    def complaints_of_answer(self, method: str, template: str, status: int, body: Any) -> list[str]:
        """What is wrong with an answer; a status that is not documented is wrong, too."""
        responses = self.document["paths"][template][method.lower()]["responses"]
        response = responses.get(str(status)) or responses.get(f"{status // 100}XX") or responses.get("default")
        if response is None:
            return [f"{method} {template}: status {status} is not documented"]
        content = self._resolved(response).get("content", {})
        media = next((content[kind] for kind in content if "json" in kind), None)
        if media is None or "schema" not in media:
            return []
        return self._complaints(media["schema"], body)

    def complaints_of_request(self, method: str, path: str, query: str, body: Any = None) -> list[str]:
        """What is wrong with a request: unknown operation, unknown, missing or unfitting parameter, unfitting body."""
        template = self.find(method, path)
        if template is None:
            return [f"{method} {path} is no operation of the specification"]
        operation = self.document["paths"][template][method.lower()]
        shared = self.document["paths"][template].get("parameters", [])
        parameters = {p["name"]: p for p in map(self._resolved, [*shared, *operation.get("parameters", [])])
                      if p["in"] == "query"}  # fmt: skip
        given = parse_qsl(query, keep_blank_values=True)
        names = {name for name, _ in given}
        found = [f"{path}: query parameter {name} is unknown" for name in names - parameters.keys()]
        found += [f"{path}: {n} is missing" for n, p in parameters.items() if p.get("required") and n not in names]
        for name in names & parameters.keys():
            values = [value for key, value in given if key == name]
            found += [f"{path}: {name}: {text}" for text in self._unfitting(parameters[name].get("schema", {}), values)]
        if body is not None:
            content = self._resolved(operation.get("requestBody", {})).get("content", {})
            found += self._complaints(content.get("application/json", {}).get("schema", {}), body)
        return found

    def _unfitting(self, schema: Mapping[str, Any], values: list[str]) -> list[str]:
        schema = self._resolved(schema)
        if schema.get("type") == "array":
            return [text for value in values for text in self._unfitting(schema.get("items", {}), [value])]
        (value,) = values
        readings = [value, *([json.loads(value)] if re.fullmatch(r"-?\d+(\.\d+)?|true|false", value) else [])]
        complaints = [self._complaints(schema, reading) for reading in readings]
        return [] if [] in complaints else complaints[0]

    def _complaints(self, schema: Mapping[str, Any], value: Any) -> list[str]:
        whole = {**schema, "components": self.document.get("components", {})}
        validator = self._validator(whole, format_checker=self._formats)
        return [f"{'/'.join(map(str, error.path))}: {error.message[:300]}" for error in validator.iter_errors(value)]

    def _resolved(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in item:
            found: Any = self.document
            for part in item["$ref"].removeprefix("#/").split("/"):
                found = found[part.replace("~1", "/").replace("~0", "~")]
            item = found
        return item


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{[^}]+\\\}", "[^/]+", re.escape(template)))


@cache
def _read(folder: str, name: str) -> Specification:
    return Specification(json.loads((Path(folder) / f"{name}.json").read_text()))


def specification(name: str) -> Specification:
    """The specification ``name``; skips the test where there is none, fails it where all is required."""
    folder = os.environ.get("RUNBOOK_CONTRACTS")
    if not folder:
        missing("RUNBOOK_CONTRACTS, the folder of published specifications")
    assert folder
    return _read(folder, name)


def joined(complaints: Iterable[str]) -> str:
    """For an assertion's message."""
    return "\n".join(complaints)

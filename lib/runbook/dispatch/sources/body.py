"""From bytes to a JSON object that can be kept, and from pydantic's findings to one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from runbook.dispatch.alert import MalformedAlert, UnreadableBody, keepable

DEPTH = 32
"""Levels of nesting that a body may have; real ones have five."""

Model = TypeVar("Model", bound=BaseModel)


def load(body: bytes) -> dict[str, Any]:
    """The JSON object in ``body``.

    Raises
    ------
    UnreadableBody
        It is not JSON in UTF-8, not an object, or nested beyond reason.
    """
    try:
        text = body.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise UnreadableBody("the body is not UTF-8", remedy="Send JSON in UTF-8") from None
    except json.JSONDecodeError as error:
        raise UnreadableBody(
            f"the body is not JSON (line {error.lineno}, column {error.colno})", remedy="Send one JSON object"
        ) from None
    except RecursionError:
        raise UnreadableBody("the body is nested too deeply", remedy="Send what the source sends by default") from None
    except ValueError:
        raise UnreadableBody("the body has a number that is none in JSON", remedy="Send plain numbers") from None
    if not isinstance(value, dict):
        raise UnreadableBody("the body is not a JSON object", remedy="Send one JSON object")
    if _deeper_than(value, DEPTH):
        raise UnreadableBody("the body is nested too deeply", remedy="Send what the source sends by default")
    kept: dict[str, Any] = keepable(value)
    return kept


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _deeper_than(value: Any, levels: int) -> bool:
    """Without recursion: the body decides how deep it is."""
    layer = [value]
    for _ in range(levels):
        layer = [
            child
            for item in layer
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not layer:
            return False
    return True


def checked(model: type[Model], value: Mapping[str, Any], *, called: str) -> Model:
    """``value`` as the model.

    Raises
    ------
    MalformedAlert
        It does not fit; names the fields, never their values.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        named = "; ".join(f"{_path(item['loc'])}: {item['msg']}" for item in problems[:3])
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise MalformedAlert(f"not {called}: {named}{more}", remedy="See the README for the expected body") from None


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:40] for part in location) or "body"

"""Notebooks as runbooks: metadata, typed parameters, the alerts they answer.

A runbook is one ``.ipynb`` whose metadata carries a ``runbook`` object and whose cell tagged ``parameters`` declares
``name: type = default  # what it is, unit [bounds]``, one a line. The cell is read with :mod:`ast` and
:mod:`tokenize`, never executed and never matched by regular expressions as a whole. Kept free of heavy imports, since
``runbook list`` reads every notebook.
"""

from __future__ import annotations

import ast
import io
import json
import keyword
import math
import os
import re
import reprlib
import sys
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook.errors import BrokenNotebook, InvalidParameter, UnknownRunbook

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from runbook.settings import Settings

PARAMETERS_TAG = "parameters"
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_NUMBERS = {"int", "float", "list[int]", "list[float]"}
_LIST = re.compile(r"list\[(str|int|float|bool)\]\Z")
_BOUNDS = re.compile(r"\s*\[(?P<low>-?[\d.]+)?\.\.(?P<high>-?[\d.]+)?\]\s*\Z")
_PATTERN = re.compile(r"\s*\[~\s*(?P<pattern>.+)\]\s*\Z")
_CHOICES = re.compile(r"\s*\[(?P<choices>[\w.-]+(?:\s*\|\s*[\w.-]+)+)\]\s*\Z")
_UNIT = re.compile(r"(?:%|[A-Za-z][A-Za-z0-9/]{0,11}|ISO 8601)\Z")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One declared parameter."""

    name: str
    #: ``str``, ``int``, ``float``, ``bool`` or ``list[…]`` of one of them.
    type: str
    default: Any
    help: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    #: Regular expression that the whole of a string must match.
    pattern: str | None = None
    choices: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The form of ``show NAME --json``, with bounds only where there are any."""
        shown: dict[str, Any] = {"type": self.type, "default": self.default, "help": self.help, "unit": self.unit}
        for key in ("minimum", "maximum", "pattern"):
            if getattr(self, key) is not None:
                shown[key] = getattr(self, key)
        if self.choices:
            shown["choices"] = list(self.choices)
        return shown

    def allowed(self) -> str:
        """What may be given, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.pattern:
            return f"{self.type} matching {self.pattern}"
        if self.minimum is not None or self.maximum is not None:
            low = "" if self.minimum is None else f"{self.minimum:g}"
            high = "" if self.maximum is None else f"{self.maximum:g}"
            return f"{self.type} in {low}..{high}"
        return self.type


@dataclass(frozen=True, kw_only=True)
class Runbook:
    """One notebook of the catalog."""

    name: str
    path: Path
    title: str
    severity: str
    #: Alert names that it answers.
    alerts: tuple[str, ...]
    parameters: dict[str, Parameter]
    #: Parameter → the alert label that it is taken from.
    parameters_from_alert: dict[str, str]
    #: ``module:function`` of the pure function that turns readings into findings.
    diagnosis: str
    causes: tuple[str, ...]
    owner: str = ""
    #: Whether an interrupted run may be started again by itself.
    idempotent: bool = False
    timeout_seconds: float = 120.0

    def notebook(self) -> NotebookNode:
        """A fresh copy of the notebook."""
        import nbformat

        notebook = _read(self.path)
        for cell in notebook["cells"]:
            cell["source"] = _source(cell)
        return nbformat.from_dict(notebook)

    def as_dict(self) -> dict[str, Any]:
        """The form of ``list --json``: no parameters."""
        return {
            "name": self.name,
            "title": self.title,
            "severity": self.severity,
            "alerts": list(self.alerts),
            "causes": list(self.causes),
        }


def directories() -> list[Path]:
    """Where notebooks are looked for: ``RUNBOOK_NOTEBOOKS``, else the repository's or the package's own."""
    named = os.environ.get("RUNBOOK_NOTEBOOKS")
    if named:
        return [Path(part) for part in named.split(os.pathsep) if part]
    package = Path(__file__).resolve().parent
    return [d for d in (package / "notebooks", package.parents[1] / "notebooks") if d.is_dir()][:1]


def names() -> list[str]:
    """Names of all notebooks, sorted."""
    return sorted({path.stem for d in directories() for path in d.glob("*.ipynb")})


def load(name: str) -> Runbook:
    """The runbook of that name.

    Raises
    ------
    UnknownRunbook
        No notebook is called so.
    BrokenNotebook
        It is there, and is not a runbook; the message names the file and what is wrong with it.
    """
    if NAME.match(name):
        for directory in directories():
            path = directory / f"{name}.ipynb"
            if path.is_file():
                stat = path.stat()
                return _parsed(path, stat.st_mtime_ns, stat.st_size)
    raise UnknownRunbook(name, names())


def load_all() -> list[Runbook]:
    """Every runbook of the catalog, by name. Raises :class:`BrokenNotebook` for the first that is none."""
    return [load(name) for name in names()]


@lru_cache(maxsize=64)
def _parsed(path: Path, mtime_ns: int, size: int) -> Runbook:
    notebook = _read(path)
    metadata = notebook.get("metadata", {}).get("runbook")
    if not isinstance(metadata, dict):
        raise _broken(path, "its metadata has no 'runbook' object")
    parameters = {p.name: p for p in _declared(path, notebook)}
    try:
        runbook = Runbook(
            name=path.stem,
            path=path,
            title=_text(metadata, "title"),
            severity=_text(metadata, "severity"),
            alerts=tuple(_texts(metadata, "alerts")),
            parameters=parameters,
            parameters_from_alert=_mapping(metadata, "parameters_from_alert"),
            diagnosis=_text(metadata, "diagnosis"),
            causes=tuple(_texts(metadata, "causes")),
            owner=_text(metadata, "owner", default=""),
            idempotent=_flag(metadata, "idempotent"),
            timeout_seconds=_seconds(metadata, "timeout_seconds", default=120.0),
        )
    except (TypeError, ValueError) as error:
        raise _broken(path, str(error)) from None
    undeclared = sorted(set(runbook.parameters_from_alert) - set(parameters))
    if undeclared:
        raise _broken(path, f"parameters_from_alert names undeclared parameters: {', '.join(undeclared)}")
    if not 0 < runbook.timeout_seconds <= 3600:
        raise _broken(path, "timeout_seconds must be in 0..3600")
    return runbook


def _read(path: Path) -> dict[str, Any]:
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _broken(path, f"it cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise _broken(path, "it is not JSON") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise _broken(path, "it has no cells")
    if not all(map(_is_cell, notebook["cells"])):
        raise _broken(path, "one of its cells is no cell of a notebook")
    if not isinstance(notebook.get("metadata", {}), dict):
        raise _broken(path, "its metadata is not an object")
    if notebook.get("nbformat") != 4:
        raise _broken(path, "it is not of notebook format 4")
    return notebook


def _source(cell: Mapping[str, Any]) -> str:
    """A cell's text; on disk it may be a list of lines."""
    return "".join(cell["source"])


def _is_cell(cell: Any) -> bool:
    if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
        return False
    metadata, source = cell.get("metadata", {}), cell.get("source")
    tags = metadata.get("tags", []) if isinstance(metadata, dict) else None
    lines = source if isinstance(source, list) else [source]
    return isinstance(tags, list) and all(isinstance(line, str) for line in lines)


def _broken(path: Path, why: str) -> BrokenNotebook:
    return BrokenNotebook(f"notebook {path.name} is not a runbook: {why}", remedy="runbook lint tells more")


def _text(metadata: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = metadata.get(key, default)
    if not isinstance(value, str) or (default is None and not value):
        raise ValueError(f"metadata runbook.{key} must be a string")
    return value


def _texts(metadata: Mapping[str, Any], key: str) -> list[str]:
    value = metadata.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"metadata runbook.{key} must be a list of strings")
    return value


def _mapping(metadata: Mapping[str, Any], key: str) -> dict[str, str]:
    value = metadata.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError(f"metadata runbook.{key} must map strings to strings")
    return dict(value)


def _flag(metadata: Mapping[str, Any], key: str) -> bool:
    value = metadata.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"metadata runbook.{key} must be true or false")
    return value


def _seconds(metadata: Mapping[str, Any], key: str, *, default: float) -> float:
    value = metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"metadata runbook.{key} must be a number")
    return float(value) if abs(value) < 1e9 else math.inf


def _declared(path: Path, notebook: Mapping[str, Any]) -> Iterator[Parameter]:
    for cell in notebook["cells"]:
        if cell.get("cell_type") == "code" and PARAMETERS_TAG in cell.get("metadata", {}).get("tags", []):
            try:
                yield from parse_parameters(_source(cell))
            except ValueError as error:
                raise _broken(path, f"parameters cell: {error}") from None
            return
    raise _broken(path, f"no code cell is tagged '{PARAMETERS_TAG}'")


def parse_parameters(source: str) -> list[Parameter]:
    """The parameters that a cell's source declares.

    Raises
    ------
    ValueError
        The source is not Python, or holds something else than annotated assignments of literals.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an escape that Python frowns at is the notebook's affair
            tree = ast.parse(source)
        comments = _comments(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ValueError(f"not Python ({error})") from None
    found: list[Parameter] = []
    for node in tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None):
            raise ValueError(f"line {node.lineno} is not 'name: type = default'")
        found.append(_parameter(node, node.target.id, node.value, comments))
    doubled = sorted({p.name for p in found if sum(q.name == p.name for q in found) > 1})
    if doubled:
        raise ValueError(f"declared twice: {', '.join(doubled)}")
    return found


def _parameter(node: ast.AnnAssign, name: str, default_node: ast.expr, comments: dict[int, str]) -> Parameter:
    if not NAME.match(name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} is no name for a parameter: lower case letters, digits and _")
    kind = ast.unparse(node.annotation).replace('"', "").replace("'", "")
    if kind not in _TYPES and not _LIST.match(kind):
        raise ValueError(f"{name}: type {kind!r} is none of str, int, float, bool, list[…]")
    try:
        default = ast.literal_eval(default_node)
    except (ValueError, TypeError, ArithmeticError, RecursionError, MemoryError):
        raise ValueError(f"{name}: the default is not a literal") from None
    try:
        help_text, limits = _described(comments.get(node.end_lineno or node.lineno, ""))
    except (ValueError, re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{name}: what stands in [ ] at the end of its line is no bound or pattern ({error})"
        ) from None
    if ("minimum" in limits and kind not in _NUMBERS) or ("pattern" in limits and kind in _NUMBERS | {"bool"}):
        raise ValueError(f"{name}: bounds are for numbers, patterns for texts")
    text, _, tail = help_text.rpartition(", ")
    described = (text, tail) if text and _UNIT.match(tail) else (help_text, "")
    parameter = Parameter(name=name, type=kind, default=default, help=described[0], unit=described[1], **limits)
    return Parameter(**{**vars(parameter), "default": checked(parameter, default)})


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


def _described(comment: str) -> tuple[str, dict[str, Any]]:
    """A comment's prose, and the bounds, pattern or choices at its end."""
    if match := _BOUNDS.search(comment):
        low, high = match["low"], match["high"]
        return comment[: match.start()], {
            "minimum": float(low) if low else None,
            "maximum": float(high) if high else None,
        }
    if match := _PATTERN.search(comment):
        re.compile(match["pattern"])
        return comment[: match.start()], {"pattern": match["pattern"]}
    if match := _CHOICES.search(comment):
        return comment[: match.start()], {"choices": tuple(c.strip() for c in match["choices"].split("|"))}
    return comment, {}


def checked(parameter: Parameter, value: Any) -> Any:
    """``value`` as the parameter's type, when it fits it and its bounds; ``int`` is accepted for ``float``.

    Raises
    ------
    ValueError
        It does not fit; says what is allowed.
    """
    listed = _LIST.match(parameter.type)
    if listed:
        if not isinstance(value, list):
            raise ValueError(f"{parameter.name}: expected {parameter.allowed()}, got {type(value).__name__}")
        return [_scalar(parameter, listed[1], item) for item in value]
    return _scalar(parameter, parameter.type, value)


def _scalar(parameter: Parameter, kind: str, value: Any) -> Any:
    wanted = _TYPES[kind]
    if kind == "float" and type(value) is int and abs(value) <= sys.float_info.max:
        value = float(value)
    fits = type(value) is wanted and not (isinstance(value, float) and not math.isfinite(value))
    if fits and parameter.choices:
        fits = str(value) in parameter.choices
    if fits and parameter.pattern is not None:
        fits = isinstance(value, str) and re.fullmatch(parameter.pattern, value) is not None
    if fits and kind == "int":
        fits = value.bit_length() < 64
    if fits and kind in ("int", "float"):
        fits = (parameter.minimum is None or value >= parameter.minimum) and (
            parameter.maximum is None or value <= parameter.maximum
        )
    if fits and kind == "str":
        fits = len(value) <= 4096 and "\x00" not in value and value.isprintable()
    if not fits:
        raise ValueError(f"{parameter.name}: expected {parameter.allowed()}, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    if type(value) is int and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    text = reprlib.repr(value)  # unlike repr, fit for a list that is a thousand deep
    return text if len(text) <= 60 else text[:57] + "…"


def parse_text(parameter: Parameter, text: str) -> Any:
    """A value written as text (``-p key=value``, an alert's label) as the parameter's type.

    Raises
    ------
    ValueError
        It does not fit; says what is allowed.
    """
    if parameter.type == "str":
        return checked(parameter, text)
    value: Any = text
    try:
        if parameter.type == "bool":
            value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        elif parameter.type in ("int", "float"):
            value = _TYPES[parameter.type](text)
        else:
            value = json.loads(text)
    except (KeyError, ValueError, RecursionError):
        raise ValueError(f"{parameter.name}: expected {parameter.allowed()}, got {_shown(text)}") from None
    return checked(parameter, value)


def as_text(value: Any) -> str:
    """A value as :func:`parse_text` reads it."""
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str).removesuffix(".0")


def parse_given(runbook: Runbook, texts: Mapping[str, str]) -> dict[str, Any]:
    """Values written as text by parameter (``-p key=value``, the fields of a form), each as its parameter's type.

    A name that is not declared is left for :func:`check_parameters` to refuse.

    Raises
    ------
    InvalidParameter
        Values that do not fit; its ``fields`` say of each one what is allowed.
    """
    given: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name, text in texts.items():
        parameter = runbook.parameters.get(name)
        try:
            given[name] = parse_text(parameter, text) if parameter is not None else text
        except ValueError as error:
            wrong[name] = str(error)
    if wrong:
        raise InvalidParameter(f"runbook {runbook.name}: {'; '.join(wrong.values())}", fields=wrong)
    return given


def check_parameters(runbook: Runbook, given: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """All of the runbook's parameters: its defaults, under ``settings.thresholds``, under what was given.

    Where the parameter ``service`` names a service of the settings, that service's thresholds stand above the general.

    Raises
    ------
    InvalidParameter
        A name that is not declared, or a value that does not fit; lists what is allowed.
    """
    unknown = sorted(str(name) for name in given if name not in runbook.parameters)
    if unknown:
        raise InvalidParameter(
            f"runbook {runbook.name} has no parameter {', '.join(repr(n[:60]) for n in unknown)}",
            remedy=f"Allowed: {', '.join(f'{p.name} ({p.allowed()})' for p in runbook.parameters.values())}",
        )
    declared = runbook.parameters.get("service")
    service = given.get("service", declared.default if declared else "")
    thresholds = settings.for_service(str(service)).thresholds.get(runbook.name, {})
    strangers = sorted(map(str, set(thresholds) - set(runbook.parameters)))
    if strangers:
        raise InvalidParameter(
            f"settings thresholds.{runbook.name} names no parameter of it: {', '.join(strangers)}",
            remedy=f"Allowed: {', '.join(runbook.parameters)}",
        )
    values: dict[str, Any] = {}
    for name, parameter in runbook.parameters.items():
        try:
            if name in given:
                values[name] = checked(parameter, given[name])
            elif isinstance(threshold := thresholds.get(name, parameter.default), str):
                values[name] = parse_text(parameter, threshold)  # the environment knows nothing but text
            else:
                values[name] = checked(parameter, threshold)
        except ValueError as error:
            raise InvalidParameter(f"runbook {runbook.name}: {error}") from None
    return values

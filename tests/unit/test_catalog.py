"""The catalog: parameters cells, notebooks that are none, values against what was declared."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbook import catalog
from runbook.catalog import Parameter, checked, parse_parameters, parse_text
from runbook.errors import BrokenNotebook, InvalidParameter, UnknownRunbook
from runbook.settings import Settings, from_plain


def one(line: str) -> Parameter:
    (parameter,) = parse_parameters(line)
    return parameter


# -- the parameters cell ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a: int = 1", {"name": "a", "type": "int", "default": 1, "help": "", "unit": ""}),
        ("a: float = 1", {"type": "float", "default": 1.0}),
        ("a: float = -1.5e3", {"default": -1500.0}),
        ("a: bool = False", {"type": "bool", "default": False}),
        ("a: str = 'x'", {"type": "str", "default": "x"}),
        ('a: "str" = ""', {"type": "str"}),
        ("a: list[str] = []", {"type": "list[str]", "default": []}),
        ("a: list[int] = [1, 2]", {"default": [1, 2]}),
        ("a: list[float] = [1, 2.5]", {"default": [1.0, 2.5]}),
        ("a: int = 30  # how far to look back, minutes", {"help": "how far to look back", "unit": "minutes"}),
        ("a: int = 30  # far, far away, minutes [1..1440]", {"help": "far, far away", "minimum": 1, "maximum": 1440}),
        ("a: float = 0  # x [-1..]", {"minimum": -1, "maximum": None}),
        ("a: float = 0  # x [..0.5]", {"minimum": None, "maximum": 0.5}),
        ("a: str = 'b'  # which [a | b | c-1]", {"choices": ("a", "b", "c-1"), "help": "which"}),
        (r'a: str = ""  # s [~ [\w]{0,3}]', {"pattern": r"[\w]{0,3}", "help": "s"}),
        ('a: str = "#no"  # a comment', {"default": "#no", "help": "a comment"}),
        ("'''What they are.'''\n\n# alone\na: int = 1", {"default": 1, "help": ""}),
        ("a: str = 'Zürich 東京'  # Größe", {"default": "Zürich 東京", "help": "Größe"}),
        ("a: str = ('x'\n  'y')  # two lines", {"default": "xy", "help": "two lines"}),
        ("a: float = 80  # of the slots, %", {"unit": "%"}),
    ],
)
def test_a_declared_parameter_is_read(line: str, expected: dict[str, Any]) -> None:
    parameter = one(line)
    assert {key: getattr(parameter, key) for key in expected} == expected


@pytest.mark.parametrize(
    "cell",
    [
        "a = 1",
        "a: int",
        "import os",
        "a: int = 1\nprint(a)",
        "a: int = len([1])",
        "a: str = open('/etc/passwd').read()",
        "a: int = 1 if True else 2",
        "a: str = f'{1}'",
        "a: list[int] = [x for x in range(3)]",
        "a: str = __import__('os').getcwd()",
        "a: int = b",
        "def f(): pass",
        "a.b: int = 1",
        "a['b']: int = 1",
        "A: int = 1",
        "_a: int = 1",
        "class_é: int = 1",
        "__import__: int = 1",
        "a: int = 1\na: int = 2",
        "a: int = 'x'",
        "a: int = 1.0",
        "a: int = True",
        "a: bool = 1",
        "a: str = None",
        "a: str = b'x'",
        "a: float = 1e999",
        "a: list[int] = [True]",
        "a: list[int] = (1,)",
        "a: list[list[int]] = []",
        "a: dict[str, str] = {}",
        "a: dict = {[]: 1}",
        "a: int = {[]: 1}",
        "a: object = 1",
        "a: os.system('reboot') = 1",
        "a: int = 5  # x [6..7]",
        "a: int = 5  # x [7..6]",
        "a: float = 5  # x [1.2.3..9]",
        "a: int = 5  # x [......]",
        "a: str = 'd'  # x [a|b]",
        "a: str = 'x'  # x [1..5]",
        "a: int = 1  # x [~ \\d]",
        "a: str = ''  # x [~ (]",
        "a: str = ''  # x [~ a{99999999999999999999}]",
        "a: str = ''  # x [~ a+]",
        "a: int = (",
        "a: int = 1 \\",
        "a: int = 1\n  b: int = 2",
        "a: int = 1\x00",
        "a: int = " + "9" * 5000,
        "a: int = " + "(" * 300 + "1" + ")" * 300,
        "a: int = " + "-" * 5000 + "1",
        "a: str = 'line\\nbreak'",
        "%%sql x",
    ],
)
def test_a_cell_that_declares_anything_else_is_refused(cell: str) -> None:
    with pytest.raises(ValueError):
        parse_parameters(cell)


@given(st.text(max_size=200) | st.text("ab: int=float[]..~|#'\"\\\n(){}%1-é\x00", max_size=60))
@example("a: str = ''  # [~ [z-a]]")
@settings(deadline=None, max_examples=100)
def test_no_cell_raises_anything_but_value_error(cell: str) -> None:
    with contextlib.suppress(ValueError):
        parse_parameters(cell)


# -- values -----------------------------------------------------------------------------------------------------------

INT = one("a: int = 5  # x [1..10]")
FLOAT = one("a: float = 5  # x [0.5..10]")
FREE_FLOAT = one("a: float = 5")
STR = one("a: str = ''")
PATTERN = one(r"a: str = 'x'  # x [~ [a-z]{1,3}]")
CHOICE = one("a: str = 'a'  # x [a|b]")
BOOL = one("a: bool = False")
STRS = one("a: list[str] = []")
INTS = one("a: list[int] = []  # x [1..10]")
ALL = (INT, FLOAT, FREE_FLOAT, STR, PATTERN, CHOICE, BOOL, STRS, INTS)


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (INT, 1, 1),
        (INT, 10, 10),
        (FLOAT, 1, 1.0),
        (FLOAT, 0.5, 0.5),
        (STR, "Zürich", "Zürich"),
        (PATTERN, "abc", "abc"),
        (CHOICE, "b", "b"),
        (BOOL, True, True),
        (STRS, ["a", ""], ["a", ""]),
        (INTS, [1, 10], [1, 10]),
        (STR, "$(reboot)", "$(reboot)"),
    ],
)
def test_a_value_that_fits_is_taken_as_its_type(parameter: Parameter, value: Any, expected: Any) -> None:
    taken = checked(parameter, value)
    assert taken == expected
    assert type(taken) is type(expected)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (INT, 0),
        (INT, 11),
        (INT, True),
        (INT, 5.0),
        (INT, "5"),
        (INT, None),
        (INT, [5]),
        pytest.param(INT, 10**5000, id="huge int"),
        (INT, math.nan),
        (FLOAT, True),
        (FLOAT, math.nan),
        (FLOAT, math.inf),
        (FLOAT, -math.inf),
        (FREE_FLOAT, math.nan),
        (FREE_FLOAT, 10**400),
        pytest.param(FLOAT, 10**5000, id="huge float"),
        (STR, 5),
        (STR, None),
        (STR, "a\x00b"),
        (STR, "a\nb"),
        (STR, "x" * 4097),
        (STR, "\ud800"),
        (STR, "\u202etxt"),
        (STR, b"x"),
        (PATTERN, "abcd"),
        (PATTERN, "abc\n"),
        (PATTERN, "ABC"),
        (CHOICE, "c"),
        (CHOICE, ""),
        (BOOL, 1),
        (BOOL, "true"),
        (STRS, "a"),
        (STRS, [1]),
        (STRS, {"a": 1}),
        (INTS, [True]),
        (INTS, [11]),
        (INTS, [[1]]),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_told_what_would(parameter: Parameter, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^a: expected") as refused:
        checked(parameter, value)
    assert parameter.allowed() in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("parameter", "text", "expected"),
    [
        (INT, "7", 7),
        (FLOAT, "7", 7.0),
        (FLOAT, "1e1", 10.0),
        (STR, "7", "7"),
        (BOOL, "yes", True),
        (BOOL, "FALSE", False),
        (STRS, '["a"]', ["a"]),
        (INTS, "[1, 2]", [1, 2]),
        (CHOICE, "a", "a"),
    ],
)
def test_text_is_read_as_the_declared_type(parameter: Parameter, text: str, expected: Any) -> None:
    assert parse_text(parameter, text) == expected


@pytest.mark.parametrize(
    ("parameter", "value", "text"),
    [
        (INT, 7, "7"),
        (FLOAT, 7.0, "7"),
        (FLOAT, 7.25, "7.25"),
        (FLOAT, 10, "10"),
        (STR, "7.0", "7.0"),
        (BOOL, True, "true"),
        (BOOL, False, "false"),
        (STRS, ["a", "b"], '["a", "b"]'),
        (CHOICE, "a", "a"),
    ],
)
def test_a_value_is_written_as_it_is_read(parameter: Parameter, value: Any, text: str) -> None:
    assert catalog.as_text(value) == text
    assert parse_text(parameter, text) == value


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        (INT, ""),
        (INT, "x"),
        (INT, "1.0"),
        pytest.param(INT, "9" * 5000, id="digits"),
        (INT, "0x5"),
        (FLOAT, "nan"),
        (FLOAT, "inf"),
        (FLOAT, "1e999"),
        (BOOL, "maybe"),
        (STRS, "a"),
        pytest.param(STRS, "[" * 100_000, id="deep"),
        (STRS, '{"a": 1}'),
        (INTS, "[true]"),
        (INTS, "[NaN]"),
        (INTS, "[" * 500 + "]" * 500),
    ],
)
def test_text_that_is_none_is_refused(parameter: Parameter, text: str) -> None:
    with pytest.raises(ValueError, match=r"^a: expected"):
        parse_text(parameter, text)


@given(st.sampled_from(ALL), st.text())
@settings(deadline=None, max_examples=150)
def test_no_text_raises_anything_but_value_error(parameter: Parameter, text: str) -> None:
    try:
        taken = parse_text(parameter, text)
    except ValueError:
        return
    json.dumps(taken, allow_nan=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@given(st.sampled_from(ALL), JSON)
@settings(deadline=None, max_examples=150)
def test_no_value_raises_anything_but_value_error(parameter: Parameter, value: Any) -> None:
    with contextlib.suppress(ValueError):
        json.dumps(checked(parameter, value), allow_nan=False)


# -- notebooks --------------------------------------------------------------------------------------------------------

NOTEBOOK: dict[str, Any] = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {
        "runbook": {
            "title": "A toy",
            "severity": "low",
            "alerts": ["Toy"],
            "parameters_from_alert": {"service": "svc"},
            "diagnosis": "runbook.diagnosis.toy:diagnose",
            "causes": ["T01"],
            "owner": "somebody",
            "idempotent": True,
            "timeout_seconds": 30,
        }
    },
    "cells": [
        {"cell_type": "markdown", "metadata": {}, "source": ["# A toy\n", "text"]},
        {
            "cell_type": "code",
            "metadata": {"tags": ["parameters"]},
            "source": [
                'service: str = ""  # s [~ [a-z]*]\n',
                "samples: int = 3  # how often [1..20]\n",
                "share: float = 0.5",
            ],
            "outputs": [],
            "execution_count": None,
        },
    ],
}


@pytest.fixture
def notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNBOOK_NOTEBOOKS", str(tmp_path))
    return tmp_path


def changed(where: list[Any], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(NOTEBOOK)
    at: Any = made
    for key in where[:-1]:
        at = at[key]
    if value is None:
        del at[where[-1]]
    else:
        at[where[-1]] = value
    return made


def put(directory: Path, notebook: Any, name: str = "toy") -> None:
    text = notebook if isinstance(notebook, str) else json.dumps(notebook)
    (directory / f"{name}.ipynb").write_text(text)


def test_a_notebook_is_read_as_a_runbook(notebooks: Path) -> None:
    put(notebooks, NOTEBOOK)
    runbook = catalog.load("toy")
    assert (runbook.title, runbook.alerts, runbook.causes, runbook.timeout_seconds) == (
        "A toy",
        ("Toy",),
        ("T01",),
        30.0,
    )
    assert list(runbook.parameters) == ["service", "samples", "share"]
    assert runbook.idempotent is True
    assert [r.name for r in catalog.load_all()] == ["toy"]


def test_the_notebook_of_a_runbook_is_a_fresh_copy_with_whole_texts(notebooks: Path) -> None:
    put(notebooks, NOTEBOOK)
    first = catalog.load("toy").notebook()
    assert first.cells[0].source == "# A toy\ntext"
    first.cells.clear()
    assert len(catalog.load("toy").notebook().cells) == 2


def test_a_changed_notebook_is_read_again(notebooks: Path) -> None:
    put(notebooks, NOTEBOOK)
    assert catalog.load("toy").title == "A toy"
    put(notebooks, changed(["metadata", "runbook", "title"], "Another toy"))
    assert catalog.load("toy").title == "Another toy"


RUNBOOK = ["metadata", "runbook"]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        pytest.param("[" * 100_000, "not JSON", id="deep"),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "not JSON"),
        ("[]", "no cells"),
        ("5", "no cells"),
        ('"x"', "no cells"),
        ("{}", "no cells"),
        (changed(["cells"], {"a": 1}), "no cells"),
        (changed(["cells", 0], 5), "no cell of a notebook"),
        (changed(["cells", 0, "cell_type"], None), "no cell of a notebook"),
        (changed(["cells", 0, "source"], None), "no cell of a notebook"),
        (changed(["cells", 1, "source"], 5), "no cell of a notebook"),
        (changed(["cells", 1, "source"], [5]), "no cell of a notebook"),
        (changed(["cells", 1, "metadata"], []), "no cell of a notebook"),
        (changed(["cells", 1, "metadata", "tags"], 5), "no cell of a notebook"),
        (changed(["cells", 1, "metadata", "tags"], "parameters"), "no cell of a notebook"),
        (changed(["cells", 1, "metadata", "tags"], ["other"]), "no code cell is tagged 'parameters'"),
        (changed(["cells", 1, "metadata"], {}), "no code cell is tagged 'parameters'"),
        (changed(["cells", 1, "cell_type"], "markdown"), "no code cell is tagged 'parameters'"),
        (changed(["cells", 1, "source"], "import os"), "parameters cell: line 1"),
        (changed(["cells", 1, "source"], "a: str = ''  # x [~ (]"), "parameters cell: a:"),
        (changed(["nbformat"], 3), "notebook format 4"),
        (changed(["nbformat"], None), "notebook format 4"),
        (changed(["metadata"], []), "its metadata is not an object"),
        (changed(["metadata"], {}), "no 'runbook' object"),
        (changed(RUNBOOK, []), "no 'runbook' object"),
        (changed([*RUNBOOK, "title"], None), "runbook.title"),
        (changed([*RUNBOOK, "title"], ""), "runbook.title"),
        (changed([*RUNBOOK, "severity"], 5), "runbook.severity"),
        (changed([*RUNBOOK, "diagnosis"], None), "runbook.diagnosis"),
        (changed([*RUNBOOK, "alerts"], "Toy"), "runbook.alerts"),
        (changed([*RUNBOOK, "alerts"], [5]), "runbook.alerts"),
        (changed([*RUNBOOK, "causes"], {}), "runbook.causes"),
        (changed([*RUNBOOK, "owner"], 5), "runbook.owner"),
        (changed([*RUNBOOK, "idempotent"], "false"), "runbook.idempotent"),
        (changed([*RUNBOOK, "parameters_from_alert"], []), "runbook.parameters_from_alert"),
        (changed([*RUNBOOK, "parameters_from_alert"], {"service": 5}), "runbook.parameters_from_alert"),
        (changed([*RUNBOOK, "parameters_from_alert"], {"nobody": "svc"}), "undeclared parameters: nobody"),
        (changed([*RUNBOOK, "timeout_seconds"], "30"), "timeout_seconds"),
        (changed([*RUNBOOK, "timeout_seconds"], True), "timeout_seconds"),
        (changed([*RUNBOOK, "timeout_seconds"], 0), "timeout_seconds"),
        (changed([*RUNBOOK, "timeout_seconds"], 10**400), "timeout_seconds"),
        (changed([*RUNBOOK, "timeout_seconds"], math.nan), "timeout_seconds"),
    ],
)
def test_a_notebook_that_is_no_runbook_is_named_with_what_is_wrong(notebooks: Path, broken: Any, why: str) -> None:
    if isinstance(broken, str) and not broken.isascii():
        (notebooks / "toy.ipynb").write_bytes(broken.encode("latin-1"))
    else:
        put(notebooks, broken)
    with pytest.raises(BrokenNotebook) as refused:
        catalog.load("toy")
    assert "toy.ipynb" in str(refused.value)
    assert why in str(refused.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_notebook_that_cannot_be_read_is_named(notebooks: Path) -> None:
    put(notebooks, NOTEBOOK)
    (notebooks / "toy.ipynb").chmod(0)
    with pytest.raises(BrokenNotebook, match="cannot be read"):
        catalog.load("toy")


@pytest.mark.parametrize(
    "name", ["absent", "", "../toy", "toy.ipynb", "TOY", "/etc/passwd", "toy\n", "a" * 100, "\x00"]
)
def test_an_unknown_name_lists_the_known_ones_and_never_becomes_a_path(notebooks: Path, name: str) -> None:
    put(notebooks, NOTEBOOK)
    with pytest.raises(UnknownRunbook, match="Known: toy"):
        catalog.load(name)


# -- given over configured over declared ------------------------------------------------------------------------------


@pytest.fixture
def toy(notebooks: Path) -> catalog.Runbook:
    put(notebooks, NOTEBOOK)
    return catalog.load("toy")


def test_every_value_that_does_not_fit_is_named_at_once(toy: catalog.Runbook) -> None:
    with pytest.raises(InvalidParameter) as refused:
        catalog.parse_given(toy, {"samples": "x", "share": "many", "service": "billing"})
    assert set(refused.value.fields) == {"samples", "share"}
    for name, said in refused.value.fields.items():
        assert said.startswith(f"{name}: expected")
        assert said in str(refused.value)


def test_what_is_not_declared_is_refused_with_what_is(toy: catalog.Runbook) -> None:
    given = catalog.parse_given(toy, {"sample": "3"})
    with pytest.raises(InvalidParameter, match=r"no parameter 'sample'.*samples"):
        catalog.check_parameters(toy, given, Settings())


def test_given_stands_above_thresholds_and_thresholds_above_the_default(toy: catalog.Runbook) -> None:
    configured = from_plain({"thresholds": {"toy": {"samples": 7, "share": 0.25}}})
    assert catalog.check_parameters(toy, {}, Settings()) == {"service": "", "samples": 3, "share": 0.5}
    assert catalog.check_parameters(toy, {}, configured) == {"service": "", "samples": 7, "share": 0.25}
    assert catalog.check_parameters(toy, {"samples": 9}, configured) == {"service": "", "samples": 9, "share": 0.25}


def test_a_services_thresholds_stand_above_the_general_ones(toy: catalog.Runbook) -> None:
    configured = from_plain(
        {
            "thresholds": {"toy": {"samples": 7, "share": 0.25}},
            "services": {"billing": {"thresholds": {"toy": {"share": 0.75}}}},
        }
    )
    billing = {"service": "billing"}
    assert catalog.check_parameters(toy, billing, configured) == {"service": "billing", "samples": 7, "share": 0.75}
    assert catalog.check_parameters(toy, billing | {"share": 0.1}, configured)["share"] == 0.1
    assert catalog.check_parameters(toy, {"service": "other"}, configured)["share"] == 0.25


def test_a_threshold_from_the_environment_is_text_and_is_read_as_its_type(
    toy: catalog.Runbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNBOOK_THRESHOLDS__TOY__SAMPLES", "7")
    assert catalog.check_parameters(toy, {}, Settings())["samples"] == 7


def test_what_is_not_declared_is_refused_with_the_list_of_what_is(toy: catalog.Runbook) -> None:
    with pytest.raises(InvalidParameter) as refused:
        catalog.check_parameters(toy, {"smaples": 5, "x" * 500: 1}, Settings())
    text = str(refused.value)
    assert "'smaples'" in text
    assert "samples (int in 1..20)" in text
    assert "service (str matching [a-z]*)" in text
    assert len(text) < 400


@pytest.mark.parametrize(
    ("thresholds", "named"),
    [
        ({"smaples": 5}, "smaples"),
        ({"samples": 99}, "int in 1..20"),
        ({"samples": "x"}, "int in 1..20"),
        ({"service": 5}, "service"),
    ],
)
def test_a_wrong_threshold_is_refused_before_anything_runs(
    toy: catalog.Runbook, thresholds: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidParameter, match=named.replace(".", r"\.")):
        catalog.check_parameters(toy, {}, from_plain({"thresholds": {"toy": thresholds}}))


@given(st.dictionaries(st.sampled_from(["service", "samples", "share"]) | st.text(max_size=5), JSON, max_size=3))
@settings(deadline=None, max_examples=100)
def test_nothing_that_is_given_raises_anything_but_invalid_parameter(given_: dict[str, Any]) -> None:
    parameters = {p.name: p for p in parse_parameters("".join(NOTEBOOK["cells"][1]["source"]))}
    runbook = catalog.Runbook(
        name="toy", path=Path("toy.ipynb"), title="t", severity="low", alerts=(), parameters=parameters,
        parameters_from_alert={}, diagnosis="a:b", causes=(),
    )  # fmt: skip
    try:
        taken = catalog.check_parameters(runbook, given_, Settings())
    except InvalidParameter:
        return
    assert set(taken) == set(parameters)

"""What is installed where: conda's bounds against ours, the lock against indexes and missing hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bounds(requirement: str) -> tuple[str, str]:
    match = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*(.*)", requirement)
    assert match is not None
    return match[1].lower().replace("_", "-"), ",".join(sorted(match[2].replace(" ", "").split(",")))


def test_conda_names_packages_within_the_bounds_of_the_project() -> None:
    text = (ROOT / "environment.yml").read_text()
    listed = [bounds(line) for line in re.findall(r"^  - ([a-z0-9-]+ [<>=].*)$", text, re.MULTILINE)]
    ours = dict(bounds(r) for r in PROJECT["dependencies"])
    ours["python"] = PROJECT["requires-python"]
    assert {name: ours.get(name) for name, _ in listed} == dict(listed)
    assert {"jupyterlab", "papermill", "nbconvert", "psycopg", "boto3", "pandas", "ipywidgets"} <= {
        n for n, _ in listed
    }


def test_the_lock_names_no_index_and_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?://|--(?:extra-)?index-url|--find-links|file:", text)


def test_every_locked_requirement_is_pinned_and_hashed() -> None:
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) > 50
    assert [line.split()[0] for line in lines if "--hash=sha256:" not in line or "==" not in line] == []


def test_every_dependency_is_locked() -> None:
    locked = {
        bounds(line)[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if re.match(r"[a-z0-9]", line)
    }
    assert {bounds(r)[0] for r in PROJECT["dependencies"]} <= locked

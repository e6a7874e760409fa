"""A PostgreSQL for the store's tests, a fresh database for each test, and notebooks to route to."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbook import settings as settings_module
from runbook.embedded import FAST, EmbeddedPostgres
from runbook.settings import Settings

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("store-server"), settings=FAST)
    with server:
        yield server


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> str:
    """URL of a database of this test's own."""
    return new_database(postgres)


def new_database(postgres: EmbeddedPostgres) -> str:
    """URL of a fresh database."""
    name = f"store_{next(_numbers)}"
    with psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.dsn(database=name)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory of this test's own."""
    directory = tmp_path / "data"
    monkeypatch.setenv("RUNBOOK_DATA_DIR", str(directory))
    return directory


@pytest.fixture
def settings(database: str, data: Path, notebooks: Path) -> Settings:
    return settings_module.from_plain({"store": {"url": database}})


@pytest.fixture
def notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalog of two runbooks: ``connections``, which may run again, and ``uploads``, which may not."""
    directory = tmp_path / "notebooks"
    directory.mkdir()
    write_notebooks(directory)
    monkeypatch.setenv("RUNBOOK_NOTEBOOKS", str(directory))
    return directory


def write_notebooks(directory: Path) -> None:
    write_notebook(
        directory,
        "connections",
        alerts=["ConnectionsHigh"],
        idempotent=True,
        parameters_from_alert={"service": "service", "samples": "samples"},
        parameters=(
            'service: str = ""  # service [~ [a-z0-9-]*]\n'
            "samples: int = 1  # how often to look [1..20]\n"
            'alert_at: str = ""  # start of the alert, ISO 8601\n'
            "hold_seconds: float = 0.0  # how long it takes, s\n"
            'ending: str = "succeeded"  # how it ends [succeeded | failed | raise]\n'
        ),
    )
    write_notebook(
        directory,
        "uploads",
        alerts=["component=uploads,tier=web"],
        parameters_from_alert={"hold_seconds": "hold"},
        parameters="hold_seconds: float = 0.0  # how long it takes, s\n",
    )


def write_notebook(directory: Path, name: str, *, parameters: str, **metadata: Any) -> None:
    runbook = {
        "title": f"The {name} runbook",
        "severity": "critical",
        "alerts": [],
        "parameters_from_alert": {},
        "diagnosis": "none:none",
        "causes": ["P01"],
        "owner": "platform",
        "idempotent": False,
        "timeout_seconds": 60,
    }
    notebook = {
        "cells": [
            {
                "cell_type": "code",
                "id": "parameters",
                "execution_count": None,
                "metadata": {"tags": ["parameters"]},
                "outputs": [],
                "source": parameters,
            }
        ],
        "metadata": {"runbook": runbook | metadata},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (directory / f"{name}.ipynb").write_text(json.dumps(notebook))

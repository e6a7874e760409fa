"""The link of a message: it leads to the run's working copy in a JupyterLab that is open, and to nobody's else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from runbook.dispatch.announce import jupyter_url
from runbook.reporting.archive import Archive
from runbook.sandbox import as_environment
from runbook.settings import from_plain
from tests.integration.broker.conftest import RUN
from tests.integration.broker.test_working_copy import archive, archived
from tests.support import free_port, wait_until

__all__ = ["archive", "archived"]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def lab(archived: Archive, data: Path, database: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """``runbook jupyter`` on the port to which links lead: the link of the run, and Lab's token."""
    settings = {"jupyter": {"url": f"http://127.0.0.1:{free_port()}"}, "store": {"url": database}}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNBOOK_", "JUPYTER"))}
    own = {"HOME": str(tmp_path), "RUNBOOK_DATA_DIR": str(data), "COLUMNS": "100"}
    told = tmp_path / "jupyter.log"
    with told.open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "runbook.cli", "jupyter", "--no-browser"],
                                   env=kept | as_environment(settings) | own, stdout=log, stderr=log)  # fmt: skip
        try:
            address = wait_until(lambda: re.search(r"JupyterLab: (\S+)\n", told.read_text()), seconds=90, what="Lab")[1]
            assert address.startswith(settings["jupyter"]["url"] + "/lab/tree/runbooks?token=")
            yield jupyter_url(RUN, from_plain(settings)), address.partition("token=")[2]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(40) == 0, told.read_text()


def test_a_link_opens_the_copy_of_its_run_for_who_has_the_token(lab: tuple[str, str], data: Path) -> None:
    link, token = lab
    stranger = httpx.get(link)
    assert (stranger.status_code, "/login?next=" in stranger.headers["location"]) == (302, True)
    assert not (data / "work" / RUN).exists()

    with httpx.Client(headers={"Authorization": f"token {token}"}) as known:
        opened = known.get(link)
        notebook = f"{RUN}/db_connection_exhaustion.ipynb"
        assert (opened.status_code, opened.headers["location"]) == (302, f"/lab/tree/{notebook}")
        contents = link.partition("/runbook/runs/")[0] + "/api/contents"
        assert known.get(f"{contents}/{notebook}", params={"content": 0}).json()["type"] == "notebook"
        runbooks = known.get(f"{contents}/runbooks").json()["content"]
        assert "db_connection_exhaustion.ipynb" in [one["name"] for one in runbooks]

        unknown = known.get(link.replace(RUN, "20261129T120000000-aaaaaaaa"))
        assert (unknown.status_code, "the archive has no run" in unknown.text) == (404, True)


def test_no_link_where_none_is_wanted() -> None:
    assert jupyter_url(RUN, from_plain({"jupyter": {"url": ""}})) == ""
    assert jupyter_url(RUN, from_plain({"jupyter": {"url": "https://lab.example.com/"}})) == (
        f"https://lab.example.com/runbook/runs/{RUN}"
    )

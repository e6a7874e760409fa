"""Progress: who sees it, what it says, and that nothing of it stays."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest

from runbook.ahead import Ahead
from runbook.progress import Progress, is_live
from runbook.result import Reading
from runbook.sampling import Sampler
from tests.support import displayed


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return displayed(monkeypatch)


def looks(*steps: Callable[[], object]) -> Callable[[float], bool]:
    """Takes a step at each look; over after the last one."""
    left = list(steps)

    def over(_: float) -> bool:
        if left:
            left.pop(0)()
        return not left

    return over


def test_a_count_goes_up_in_one_output_that_is_empty_in_the_end(said: list[str]) -> None:
    progress = Progress(watched=True)
    with progress.counting("hosts", 40, "answered") as count:
        progress.wait(looks(count.advance, lambda: None, count.advance, lambda: None))
    assert said == ["hosts 1 of 40 answered", "hosts 2 of 40 answered", ""]


def test_of_several_the_one_that_is_waited_for_is_shown(said: list[str]) -> None:
    progress = Progress(watched=True)
    with progress.counting("hosts", 4, "answered") as quick, progress.counting("hosts", 5, "answered"):
        progress.wait(looks(quick.advance, lambda: None))
    assert said == ["hosts 0 of 5 answered", ""]


def test_where_there_is_one_thing_to_wait_for_nothing_is_counted(said: list[str]) -> None:
    progress = Progress(watched=True)
    with progress.counting("hosts", 1, "answered"):
        progress.wait(looks(lambda: None, lambda: None))
    assert said == []


def test_an_interrupted_wait_leaves_nothing(said: list[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    progress = Progress(watched=True)
    with pytest.raises(KeyboardInterrupt), progress.counting("hosts", 2, "answered"):
        progress.wait(looks(lambda: None, interrupt))
    assert said[-1] == ""


def test_only_the_thread_of_the_cells_shows_anything(said: list[str]) -> None:
    progress = Progress(watched=True)
    with progress.counting("hosts", 2, "answered"):
        thread = threading.Thread(target=progress.wait, args=(lambda _: True,))
        thread.start()
        thread.join()
    assert said == []


def test_a_limit_is_kept_while_somebody_watches() -> None:
    seconds: list[float] = []

    def never(left: float) -> bool:
        seconds.append(left)
        threading.Event().wait(left)
        return False

    Progress(watched=True).wait(never, 0.3)
    assert sum(seconds) <= 0.3


def test_a_fetch_that_is_waited_for_shows_how_far_it_is(said: list[str]) -> None:
    progress, go = Progress(watched=True), threading.Event()

    def take() -> Reading:
        with progress.counting("hosts", 3, "answered") as count:
            count.advance()
            go.wait(10)
        return Reading(name="x", source="s", target="t", query="", measured_at="", duration_ms=0.0, value=[])

    ahead = Ahead(progress)
    ahead.begin({"x": take})
    threading.Timer(0.6, go.set).start()
    assert ahead.fetch("x").name == "x"
    ahead.close()
    assert said == ["hosts 1 of 3 answered", ""]


@pytest.mark.parametrize("watched", [True, False])
def test_samples_are_counted_for_whoever_waits(said: list[str], watched: bool) -> None:
    taken: list[int] = []
    sampler = Sampler(lambda: taken.append(1), 3, 0.3, watched=watched)
    sampler.wait()
    assert len(taken) == 3
    assert ("samples 1 of 3 taken" in said) is watched
    assert said[-1:] == ([""] if watched else [])


def test_a_front_end_says_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_live({"JPY_SESSION_NAME": "/x/mine.ipynb"})
    assert not is_live({})
    monkeypatch.setattr(sys.modules["__main__"], "__vsc_ipynb_file__", "/x/mine.ipynb", raising=False)
    assert is_live({})

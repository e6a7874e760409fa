from __future__ import annotations

import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import pytest

from runbook.reporting import charts
from runbook.reporting.charts import connections_by_state
from tests.unit.reporting.active import active_content

SVG = "{http://www.w3.org/2000/svg}"


def chart(states: dict[Any, int] | None = None, **more: Any) -> charts.Chart:
    given = {"usable": 25, "max_connections": 30, "threshold_share": 0.8} | more
    return connections_by_state(
        {"idle in transaction": 20, "active": 1, "idle": 1} if states is None else states, **given
    )


def texts(drawing: charts.Chart) -> list[str]:
    return ["".join(t.itertext()) for t in ElementTree.fromstring(drawing.svg).iter(f"{SVG}text")]


def widths(drawing: charts.Chart, colour: str) -> list[float]:
    found = []
    for path in ElementTree.fromstring(drawing.svg).iter(f"{SVG}path"):
        if colour in path.get("style", ""):
            xs = [
                float(word) for word in path.get("d", "").replace("M", " ").replace("L", " ").replace("z", " ").split()
            ][::2]
            found.append(max(xs) - min(xs))
    return found


def test_states_limit_and_threshold_are_labelled_as_text() -> None:
    shown = texts(chart())
    assert {"20 idle in transaction", "1 active", "1 idle"} <= set(shown)
    assert any("alert at 80" in text and "= 20" in text for text in shown)
    assert "25 usable slots + 5 reserved" in shown


def test_bars_are_in_proportion() -> None:
    leaked, active = widths(chart(), "#d9822b"), widths(chart(), "#2b6cb0")
    assert leaked[0] == pytest.approx(20 * active[0], rel=0.01)


def test_words_say_what_the_drawing_shows() -> None:
    alt = chart().alt.replace("\u202f", " ")
    assert alt.startswith("22 of 25 usable connection slots are taken (88 %), at or above the alert threshold of 20:")
    assert "20 idle in transaction" in alt
    assert "5 of 30 slots are reserved" in alt


def test_each_sample_has_a_bar_and_its_time() -> None:
    samples = [{"measured_at": f"2026-03-01T03:12:0{n}Z", "states": {"active": n}} for n in (1, 2)]
    drawing = chart(samples=samples)
    assert {"03:12:01", "03:12:02", "now"} <= set(texts(drawing))
    assert "Earlier: 03:12:01 1, 03:12:02 2." in drawing.alt
    assert len(widths(drawing, "#2b6cb0")) == 3


def test_same_numbers_give_the_same_bytes_in_another_process() -> None:
    program = (
        "from runbook.reporting.charts import connections_by_state as c; import sys; "
        "sys.stdout.write(c({'idle in transaction': 20, 'active': 1, 'idle': 1}, usable=25, max_connections=30, "
        "threshold_share=0.8).svg)"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert other.stdout == chart().svg == chart().svg


def test_drawing_is_small_static_and_takes_the_themes_colours() -> None:
    drawing = chart().svg
    assert len(drawing) < 20_000
    assert active_content(drawing) == []
    assert "http" not in drawing.replace('xmlns="http://www.w3.org/2000/svg"', "")
    for name in ("ink", "muted", "ground", "alarm"):
        assert f"var(--chart-{name}, #" in drawing


def test_state_that_postgresql_may_invent_is_shown_and_escaped() -> None:
    drawing = chart({"<script>alert(1)</script>": 3, None: 2})
    assert "3 <script>alert(1)</script>" in texts(drawing)
    assert "<script" not in drawing.svg
    assert "2 unknown" in texts(drawing)


@pytest.mark.parametrize(
    "given",
    [
        {"states": {}},
        {"states": {"idle": 0}},
        {"states": {"idle": 60}},
        {"usable": 0, "max_connections": 0},
        {"usable": 30, "max_connections": 30},
        {"usable": 4997, "max_connections": 5000, "states": {"idle": 3000, "active": 3}},
        {"threshold_share": 1.0},
        {"states": {f"state {n}": 1 for n in range(12)}},
    ],
)
def test_odd_numbers_still_draw(given: dict[str, Any]) -> None:
    drawing = chart(**given)
    assert ElementTree.fromstring(drawing.svg).tag == f"{SVG}svg"
    assert drawing.alt


def test_notebook_gets_drawing_and_words() -> None:
    drawing = chart()
    assert drawing._repr_mimebundle_() == {"image/svg+xml": drawing.svg, "text/plain": drawing.alt}


def test_pyplot_is_never_imported() -> None:
    program = (
        "import sys; from runbook.reporting.charts import connections_by_state as c; "
        "assert 'matplotlib' not in sys.modules; c({'idle': 1}, usable=2, max_connections=3, threshold_share=0.8); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

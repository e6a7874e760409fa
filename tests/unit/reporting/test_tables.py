from __future__ import annotations

import pytest

from runbook.reporting import safe
from runbook.reporting.tables import MAX_CELL_CHARACTERS, facts_html, table_html, tree_html
from tests.unit.reporting.active import active_content
from tests.unit.reporting.hostile import PAYLOAD

ROWS = [
    {"pid": 12345, "state": "idle", "sessions": 12345, "share": 0.125, "query": "select <b>"},
    {"pid": 7, "state": None, "sessions": 2, "share": 1.0, "query": ""},
]


def test_numbers_stand_to_the_right_with_thousands_apart_and_ids_do_not() -> None:
    html = table_html(ROWS)
    assert '<td class="rb-number">12\u202f345</td>' in html
    assert '<td class="rb-number">12345</td>' in html
    assert "<th class=\"rb-number\" scope='col'>sessions</th>" in html
    assert "<td>idle</td>" in html


def test_null_and_empty_text_are_told_apart() -> None:
    html = table_html(ROWS)
    assert '<td class="rb-null">NULL</td>' in html
    assert '<td class="rb-null">(empty)</td>' in html


def test_everything_is_escaped() -> None:
    html = table_html(
        [{PAYLOAD: PAYLOAD}], caption=PAYLOAD, source=PAYLOAD, target=PAYLOAD, reason=PAYLOAD, state=PAYLOAD
    )
    assert active_content(html) == []
    assert active_content(facts_html({PAYLOAD: PAYLOAD}, caption=PAYLOAD, source=PAYLOAD)) == []
    assert active_content(tree_html([{"depth": 0, PAYLOAD: PAYLOAD}], caption=PAYLOAD)) == []


def test_rows_beyond_the_limit_are_counted() -> None:
    html = table_html([{"n": n} for n in range(1234)], max_rows=10)
    assert html.count("<tr>") == 11
    assert "Showing 10 of 1\u202f234 rows." in html


def test_long_text_is_cut_and_says_how_long_it_was() -> None:
    html = table_html([{"query": "x" * 5000}])
    assert "x" * MAX_CELL_CHARACTERS + "… (5\u202f000 characters)" in html
    assert "x" * (MAX_CELL_CHARACTERS + 1) not in html


def test_provenance_is_one_line_under_the_table() -> None:
    html = table_html(ROWS, source="postgresql", target="127.0.0.1:5432/shop", duration_ms=12.4)
    assert '<p class="rb-provenance">postgresql · 127.0.0.1:5432/shop · read in 12 ms</p></div>' in html


@pytest.mark.parametrize("state", ["unreachable", "timeout", "not_configured", "permission_denied"])
def test_reading_that_failed_is_unknown_and_not_empty(state: str) -> None:
    html = table_html([], caption="holders", source="postgresql", state=state, reason="why it failed")
    assert "unknown" in html
    assert "no rows" not in html
    assert "why it failed" in html


def test_reading_without_rows_says_so() -> None:
    assert "holders: no rows." in table_html([], caption="holders")


def test_columns_are_the_union_of_all_rows_in_order() -> None:
    html = table_html([{"a": "x"}, {"b": "y", "a": "z"}])
    assert html.index(">a</th>") < html.index(">b</th>")
    assert "<tr><td>x</td><td></td></tr>" in html


def test_timestamps_keep_every_digit() -> None:
    html = table_html([{"backend_start": "2026-03-01T02:50:10.104211+00:00"}])
    assert '<td class="rb-time">2026-03-01 02:50:10.104211Z</td>' in html


def test_children_are_nested_under_their_parent() -> None:
    rows = [{"depth": d, "pid": p} for d, p in ((0, 1), (1, 2), (2, 3), (1, 4), (0, 5))]
    tree = tree_html(rows, style=False).replace(' class="rb-tree"', "")
    inside = "<ul><li>pid 1<ul><li>pid 2<ul><li>pid 3</li></ul></li><li>pid 4</li></ul></li><li>pid 5</li></ul>"
    assert inside in tree


@pytest.mark.parametrize(
    "rows", [[], [{"depth": 5, "pid": 1}, {"depth": 9, "pid": 2}], [{"depth": -3}, {"depth": None}]]
)
def test_tree_of_odd_depths_is_still_balanced(rows: list[dict[str, int]]) -> None:
    html = tree_html(rows, style=False)
    assert html.count("<ul") == html.count("</ul>")
    assert html.count("<li>") == html.count("</li>") == len(rows)


def test_facts_show_names_and_values_side_by_side() -> None:
    html = facts_html({"max_connections": 30, "own_pid": 12345, "role": None}, caption="Slots", source="postgresql")
    assert "<div><dt>max_connections</dt><dd>30</dd></div>" in html
    assert "<dd>12345</dd>" in html
    assert '<span class="rb-null">NULL</span>' in html


@pytest.mark.parametrize(
    "html", [table_html(ROWS, caption="c", source="s"), facts_html({"a": 1}), tree_html([{"depth": 0, "pid": 1}])]
)
def test_fragments_pass_the_reports_own_sanitiser_whole(html: str) -> None:
    without_style = html[html.index('<div class="rb-reading">') :].replace("scope='col'", 'scope="col"')
    assert str(safe.output_html(html)).replace("\n", "") == without_style.replace("&quot;", '"')

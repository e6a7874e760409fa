from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from runbook.reporting.fragment import actions_html
from runbook.reporting.html import CONTENT_SECURITY_POLICY, findings_html, render
from runbook.result import RESULT_MIME
from tests.unit.reporting import hostile
from tests.unit.reporting.active import active_content, links
from tests.unit.reporting.samples import SAMPLES, document, failed_document, leaky_findings, lock_findings, notebook


class _Outline(HTMLParser):
    """Heading levels in order, ids, what links inside the page point at, text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.missing_alt: list[str] = []
        self._text: list[str] = []
        self._skipped = 0
        self.feed(page)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "a" and str(given.get("href")).startswith("#"):
            self.targets.append(str(given["href"])[1:])
        if tag == "img" and not given.get("alt"):
            self.missing_alt.append(str(given))
        self._skipped += tag in ("style", "title")

    def handle_endtag(self, tag: str) -> None:
        self._skipped -= tag in ("style", "title")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._text.append(data)


def outputs_page(*outputs: object) -> str:
    return render(new_notebook(cells=[new_code_cell("x", outputs=list(outputs))]), document())


def test_a_page_of_attacks_has_no_active_content() -> None:
    assert active_content(render(hostile.hostile_notebook(), hostile.hostile_document())) == []


@pytest.mark.parametrize("name", hostile.HTML)
def test_hostile_html_output_has_no_active_content_and_no_link(name: str) -> None:
    page = outputs_page(new_output("display_data", {"text/html": hostile.HTML[name]}))
    assert active_content(page) == []
    assert links(page) == []


@pytest.mark.parametrize("name", hostile.DRAWINGS)
def test_hostile_drawing_has_no_active_content(name: str) -> None:
    page = outputs_page(new_output("display_data", {"image/svg+xml": hostile.DRAWINGS[name]}))
    assert active_content(page) == []
    assert name == "title-html" or "evil.invalid" not in page  # there it is text
    assert "/etc/passwd" not in page


@pytest.mark.parametrize("name", hostile.MARKDOWN)
@pytest.mark.parametrize("where", ["prose", "output"])
def test_hostile_markdown_has_no_active_content(name: str, where: str) -> None:
    text = hostile.MARKDOWN[name]
    if where == "prose":
        page = render(new_notebook(cells=[new_markdown_cell(text)]), document())
    else:
        page = outputs_page(new_output("display_data", {"text/markdown": text}))
    assert active_content(page) == []


@pytest.mark.parametrize("mime", hostile.OTHER)
def test_what_is_not_allowed_is_left_out_and_named(mime: str) -> None:
    page = outputs_page(new_output("display_data", {mime: hostile.OTHER[mime]}))
    assert active_content(page) == []
    assert "Not shown in a report" in page or "picture is not shown" in page


def test_hostile_output_cannot_pose_as_the_reports_own_parts() -> None:
    page = outputs_page(new_output("display_data", {"text/html": hostile.HTML["class-overlay"]}))
    assert page.count('id="verdict"') == 1
    assert "forged verdict" in page
    assert 'class="top broken' not in page


def test_unclosed_output_cannot_swallow_the_rest_of_the_page() -> None:
    page = outputs_page(new_output("display_data", {"text/html": hostile.HTML["unclosed"]}))
    assert page.rstrip().endswith("</html>")
    assert page.count("<footer") == 1
    assert page.index("</table>", page.index('class="foreign"')) < page.index("<footer")


def test_prose_may_link_to_the_web_and_outputs_may_not() -> None:
    nb = new_notebook(
        cells=[
            new_markdown_cell("[manual](https://www.postgresql.org/docs/)"),
            new_code_cell("x", outputs=[new_output("display_data", {"text/markdown": "[other](https://example.org)"})]),
        ]
    )
    assert links(render(nb, document())) == ["https://www.postgresql.org/docs/"]


@pytest.mark.parametrize("name", SAMPLES)
def test_report_is_self_contained(name: str) -> None:
    page = render(*SAMPLES[name]())
    assert active_content(page) == []
    assert links(page) == []
    assert f'content="{CONTENT_SECURITY_POLICY.replace(chr(39), "&#39;")}"' in page


@pytest.mark.parametrize("name", SAMPLES)
def test_report_is_small_and_encodable(name: str) -> None:
    assert len(render(*SAMPLES[name]()).encode("utf-8")) < 120_000


@pytest.mark.parametrize("name", SAMPLES)
def test_report_is_well_structured(name: str) -> None:
    page = render(*SAMPLES[name]())
    outline = _Outline(page)
    assert '<html lang="en">' in page
    assert page.count("<main>") == 1
    assert outline.levels[0] == 1
    assert outline.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(outline.levels, outline.levels[1:], strict=False))
    assert len(outline.ids) == len(set(outline.ids))
    assert set(outline.targets) <= set(outline.ids)
    assert outline.missing_alt == []
    assert "tabindex" not in page


def test_rendering_twice_gives_the_same_bytes_and_leaves_the_notebook_alone() -> None:
    nb = notebook()
    before = nb.copy()
    assert render(nb, document()) == render(nb, document())
    assert nb == before


def test_reports_can_be_rendered_from_many_threads() -> None:
    names = list(SAMPLES) * 4
    wanted = {name: render(*SAMPLES[name]()) for name in SAMPLES}
    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda name: render(*SAMPLES[name]()), names))
    assert pages == [wanted[name] for name in names]


def test_report_opens_with_outcome_alert_symptom_and_verdict_in_this_order() -> None:
    text = _Outline(render(notebook(), document())).text
    order = [
        "Diagnosed", "Idle-in-transaction leak (application api-leaky)", "P01 confirmed, explains 80",
        "88", "over the threshold of 80", "database_connections", "2026-03-01 03:10:01 UTC",
        "Verdict", "Because", "Recommended actions", "What could not be checked", "Timeline", "The investigation",
    ]  # fmt: skip
    positions = [text.index(part) for part in order]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    "shown",
    [
        "Confirmed", "P01", "score 12", "coverage 92", "api-leaky", "median age", "4 min 5 s",
        "Median age in idle in transaction", "245.3 s", "threshold ≥ 30 s", "decisive", "postgresql: holders",
        "threshold ≥ 20", "Possible", "contributing", "Also considered: 2 causes", "Undetermined", "Excluded",
        "Genuine growth", "prometheus is not configured", "github: commits (not configured)",
        "github.repository is not set", "New connections are refused when 3 more slots are taken",
        "INC-2026-0117", "Critical".lower(), "shop",
        "Terminate the ten oldest leaked sessions", "proposed", "48210", "48219", "2026-03-01 02:50:10.104211Z",
        "holds", "does not hold", "Not now: a precondition does not hold.", "unknown", "pg_signal_backend",
        "pg_terminate_backend(pid, 2000)", "irreversible: the open transactions roll back",
        "ALTER ROLE web RESET idle_in_transaction_session_timeout;",
        "Waiting in the queue", "Kernel", "Is it real?", "4.1 s", "2 min 4 s before the run", "Run finished",
        "runbook replay 01JNA7Q2M8-db-connection-exhaustion", "3.11.7",
    ],
)  # fmt: skip
def test_every_part_of_the_result_is_in_the_report(shown: str) -> None:
    assert shown in _Outline(render(notebook(), document())).text.replace("\u202f", " ")


def test_unexplained_remainder_is_said_only_when_it_matters() -> None:
    assert "of the symptom is unexplained" in render(notebook(lock_findings()), document(lock_findings()))
    assert "of the symptom is unexplained" not in render(notebook(), document())


def test_tree_of_waiters_is_indented_under_its_root() -> None:
    page = render(notebook(lock_findings()), document(lock_findings()))
    assert re.search(r"<li>pid 5120 [^<]*<ul><li>pid 5121 [^<]*</li><li>pid 5122 ", page)


def test_consequence_names_its_cause_and_is_no_part_of_the_headline() -> None:
    page = render(notebook(lock_findings()), document(lock_findings()))
    assert "consequence of P02" in page
    assert "Slow-query" not in page.split("</h1>")[0]


def test_narrative_refers_to_the_verdict_instead_of_repeating_it() -> None:
    page = render(notebook(), document())
    assert page.count("Median age in idle in transaction") == 1
    assert 'The verdict of this run opens this report: <a href="#verdict">' in page


def test_a_display_with_another_verdict_is_shown_where_it_stands() -> None:
    text = _Outline(render(notebook(lock_findings()), document())).text
    assert text.index("Lock pile-up") > text.index("The investigation, step by step")


def test_failed_run_names_the_cell_the_section_and_the_error_and_marks_the_cell() -> None:
    page = render(*SAMPLES["failed"]())
    text = _Outline(page).text
    assert "The run failed at cell 7, “3 The machine”." in text
    assert "KernelDied: the kernel was killed (signal 9) while this cell ran" in text
    assert page.count('class="cell failed"') == 1
    assert "not run" in text
    assert "unknown, not healthy" in text
    assert "broke off here" in text


def test_failed_cell_is_found_by_its_number_when_the_engine_could_not_mark_it() -> None:
    page = render(notebook(), failed_document())
    assert page.index('class="cell failed"') > page.index("3 The machine</h4>")
    assert page.index('class="cell failed"') < page.index("4 Recent code changes</h4>")


@pytest.mark.parametrize("state", ["failed", "interrupted", "cancelled", "running", "queued"])
def test_every_state_but_succeeded_is_announced(state: str) -> None:
    assert 'class="broken"' in render(notebook(), document(state=state))


def test_a_run_that_succeeded_has_no_banner() -> None:
    assert 'class="broken"' not in render(notebook(), document())


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"state": "failed", "error": None, "verdict": None, "evidence": None, "symptom": None, "alert": None},
        {"verdict": [{}], "evidence": [{}], "actions": [{}], "not_checked": [{}], "symptom": {}, "timings": None},
        {"verdict": "x", "evidence": 3, "actions": {"a": 1}, "symptom": [], "alert": {}, "timings": {"total_s": None}},
        {"verdict": [{"cause": "P01", "share": float("nan"), "details": None}], "unexplained": None},
    ],
)
def test_an_incomplete_result_still_gives_a_whole_page(result: dict[str, object]) -> None:
    page = render(new_notebook(cells=[]), result)
    assert page.rstrip().endswith("</html>")
    assert active_content(page) == []


def test_outcomes_are_said_in_words() -> None:
    for outcome, said in {
        "healthy": "Healthy: no fault found",
        "no_current_fault": "Nothing is wrong now",
        "insufficient_data": "Not enough data to say what is wrong",
        "undetermined": "The cause could not be determined",
    }.items():
        assert said in render(notebook(), document(leaky_findings() | {"outcome": outcome, "verdict": []}))


def test_a_culprit_without_a_session_is_named_by_what_it_has() -> None:
    details = {"pid": 0, "application_name": "(unset)", "gid": "payment-4711"}
    verdict = [{"cause": "P02b", "name": "prepared transaction", "tier": "confirmed", "share": 1, "details": details}]
    page = render(notebook(), document(leaky_findings() | {"verdict": verdict}))
    assert "Prepared transaction (gid payment-4711)</h1>" in page


def test_health_is_neither_alarming_nor_a_share_of_a_symptom() -> None:
    healthy = {"cause": "P00", "name": "healthy", "tier": "confirmed", "share": 1.0, "details": {}}
    page = render(notebook(), document(leaky_findings() | {"outcome": "healthy", "verdict": [healthy]}))
    assert '<section id="verdict" class="fine">' in page
    assert "of the symptom" not in page.split('id="timeline"')[0].split("</style>")[1]


def test_proposed_actions_stand_once_and_are_referred_to_in_the_narrative() -> None:
    output = new_output("display_data", {"text/html": actions_html(leaky_findings()["actions"])})
    page = outputs_page(output)
    assert page.count("pg_terminate_backend(pid, 2000)") == 1
    assert 'The actions are proposed <a href="#actions">above</a>.' in page
    other = render(
        new_notebook(cells=[new_code_cell("x", outputs=[output])]), document(leaky_findings() | {"actions": []})
    )
    assert "pg_terminate_backend(pid, 2000)" in other


def test_causes_that_were_not_found_are_folded_away() -> None:
    for sample in ("undetermined", "leaky"):
        assert '<details class="considered">' in render(*SAMPLES[sample]())


def test_parameters_show_values_defaults_and_meaning_once() -> None:
    page = render(notebook(), document())
    row = re.search(r"<tr><td><code>window_minutes</code>.*?</tr>", page)
    assert row is not None
    assert "30 min" in row[0]
    assert "60 min" in row[0]
    assert "how far back" in row[0]
    assert "injected" not in page
    assert page.count("<code>window_minutes</code>") == 1


def test_code_is_folded_and_machine_cells_are_folded_whole() -> None:
    page = render(notebook(), document())
    assert 'details class="code"><summary>SQL · cell 5 · 20 ms</summary>' in page
    machine = page[page.index('<details class="machine">') :]
    assert "start" in machine[: machine.index("</details>")]
    assert "<details open" not in page


def test_papermills_own_error_banner_is_replaced_by_ours() -> None:
    nb = new_notebook(
        cells=[
            new_markdown_cell("banner <span>An Exception</span>", metadata={"tags": ["papermill-error-cell-tag"]}),
            new_code_cell("x"),
        ]
    )
    assert "An Exception" not in render(nb, failed_document())


def test_a_step_that_failed_without_ending_the_run_is_marked() -> None:
    page = outputs_page(new_output("error", ename="ValueError", evalue="<no>", traceback=["\x1b[31mboom\x1b[0m"]))
    assert "This step failed; the run went on without it." in page
    assert "&lt;no&gt;" in page
    assert '<span class="ansi-red-fg">boom</span>' in page


def test_title_of_the_notebook_is_not_repeated_in_the_narrative() -> None:
    narrative = render(notebook(), document()).split('<section id="narrative">')[1]
    assert "Database connections exhausted</h" not in narrative


def test_headings_of_outputs_do_not_disturb_the_outline() -> None:
    page = outputs_page(new_output("display_data", {"text/html": "<h1>shout</h1>"}))
    assert page.count("<h1") == 1
    assert "shout" in page


def test_charts_are_inline_described_and_do_not_share_ids() -> None:
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg"><defs><clipPath id="c"><rect width="1" height="1"/></clipPath></defs>'
        '<g clip-path="url(#c)"><rect width="1" height="1"/></g></svg>'
    )
    output = new_output("display_data", {"image/svg+xml": drawing, "text/plain": "Two bars."})
    page = outputs_page(output, output)
    assert page.count('role="img" aria-label="Two bars."') == 2
    assert "url(#drawing1-c)" in page
    assert "url(#drawing2-c)" in page


def test_name_of_a_figure_object_is_no_description() -> None:
    drawing = '<svg xmlns="http://www.w3.org/2000/svg"/>'
    page = outputs_page(new_output("display_data", {"image/svg+xml": drawing, "text/plain": "<Figure size 1x1>"}))
    assert 'aria-label="Chart"' in page


def test_pictures_stay_as_data_and_keep_their_description() -> None:
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    output = new_output("display_data", {"image/png": png}, metadata={"image/png": {"alt": "One red pixel"}})
    assert f'<img alt="One red pixel" src="data:image/png;base64,{png}">' in outputs_page(output)


def test_pandas_table_keeps_its_structure_and_loses_its_style() -> None:
    html = (
        '<div><style scoped>.dataframe tbody tr th {vertical-align: top}</style><table border="1" class="dataframe">'
        '<thead><tr style="text-align: right;"><th></th><th>n</th></tr></thead><tbody><tr><th>0</th><td>1</td></tr>'
        "</tbody></table></div>"
    )
    page = outputs_page(new_output("execute_result", {"text/html": html, "text/plain": "n"}, execution_count=1))
    assert '<table class="dataframe"><thead><tr><th></th><th>n</th></tr></thead><tbody>' in page
    assert "scoped" not in page


def test_a_table_of_a_hundred_thousand_rows_is_cut_and_says_so() -> None:
    rows = "".join(f"<tr><td>{n}</td><td>some text</td></tr>" for n in range(100_000))
    page = outputs_page(new_output("display_data", {"text/html": f"<table>{rows}</table>"}))
    assert len(page) < 400_000
    assert re.search(r"Cut: [\d\u202f]+ rows left out\. All of it is in notebook\.ipynb", page)
    assert page.index("</table>") < page.index("Cut:")


def test_a_stream_of_five_megabytes_keeps_its_beginning_and_its_end() -> None:
    lines = ["first line", *(f"noise {n}" for n in range(400_000)), "last line: the error"]
    page = outputs_page(new_output("stream", text="\n".join(lines)))
    assert len(page) < 400_000
    assert "first line" in page
    assert "last line: the error" in page
    assert re.search(r"Cut: [\d\u202f]+ characters are left out", page)


def test_outputs_beyond_what_a_page_holds_are_counted() -> None:
    outputs = [new_output("display_data", {"text/html": f"<p>{'x' * 110_000}</p>"}) for _ in range(40)]
    page = outputs_page(*outputs)
    assert len(page) < 3_500_000
    assert re.search(r"\d+ more outputs are left out: this report is full", page)


def test_control_characters_show_as_their_code_and_break_nothing() -> None:
    page = outputs_page(
        new_output("stream", text="a\x00b\x07c\u202egnp.exe\u2066x\ud800y"),
        new_output("display_data", {"text/html": "\u202e"}),
    )
    page.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page)
    assert "[U+202E]gnp.exe" in page


def test_text_of_any_script_is_kept() -> None:
    text = "שלום مرحبا 你好 Ünïcödé 🚒 e\u0301"
    findings = leaky_findings() | {"impact": text}
    page = render(new_notebook(cells=[new_markdown_cell(text)]), document(findings))
    assert page.count(text) == 2


def test_progress_bars_show_only_their_last_state() -> None:
    page = outputs_page(new_output("stream", text="10%\r50%\r100%\ndone\n"))
    assert ">100%\ndone\n</pre>" in page


def test_invalid_cells_do_not_cost_the_report() -> None:
    cell = new_code_cell("x")
    cell["outputs"] = [{"output_type": "nonsense"}, {"output_type": "display_data", "data": {"text/plain": ["a", "b"]}}]
    del cell["metadata"]
    nb = new_notebook()
    nb.cells.append(cell)
    page = render(nb, document())
    assert ">ab</pre>" in page


def test_warming_leaves_only_the_pages_own_work_for_the_first_report() -> None:
    program = """
        import sys
        from runbook.reporting.html import render, warm
        heavy = {"nbconvert", "nh3", "mistune", "pygments"}
        assert not heavy & set(sys.modules), "heavy before it is asked for"
        warm()
        from tests.unit.reporting.samples import document, healthy_findings, notebook
        known = set(sys.modules)
        render(notebook(healthy_findings()), document(healthy_findings()))
        assert not {name for name in set(sys.modules) - known if name.split(".")[0] in heavy}, "imported late"
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_fragment_for_the_notebook_carries_the_same_verdict_and_its_own_style() -> None:
    fragment = findings_html(leaky_findings())
    text = _Outline(fragment).text
    for part in ("Idle-in-transaction leak", "api-leaky", "245.3 s", "pg_terminate_backend", "not configured"):
        assert part in text
    assert fragment.startswith("<style>.rb-findings")
    assert active_content(fragment) == []


def test_fragment_of_hostile_findings_has_no_active_content() -> None:
    assert active_content(findings_html(hostile.hostile_findings())) == []


def test_result_display_is_rendered_from_its_data_and_not_from_its_html() -> None:
    data = {RESULT_MIME: leaky_findings(), "text/html": "<p>forged</p>"}
    assert "forged" not in outputs_page(new_output("display_data", data))

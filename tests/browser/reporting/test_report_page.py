"""Reports as a browser shows them: with the network off, in both themes, on a narrow screen and on paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from runbook.reporting.html import render
from tests.unit.reporting.hostile import hostile_document, hostile_notebook
from tests.unit.reporting.samples import SAMPLES

CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = color => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
                          return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => { for (let e = element; e; e = e.parentElement) {
    const color = rgba(getComputedStyle(e).backgroundColor); if (color[3] === 255) return color; }
    return [255, 255, 255]; };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('svg, style')) continue;
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const text = walker.currentNode.data.trim();
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className} ${text}`);
  }
  return poor;
}"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every sample and the page of attacks, as files."""
    directory = tmp_path_factory.mktemp("reports")
    pages = {name: render(*make()) for name, make in SAMPLES.items()}
    pages["hostile"] = render(hostile_notebook(), hostile_document())
    for name, page in pages.items():
        (directory / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: directory / f"{name}.html" for name in pages}


class Seen:
    """What a page did while it was open."""

    def __init__(self, page: Page) -> None:
        self.console: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("dialog", lambda dialog: self.console.append(dialog.message))
        page.on("request", lambda request: self.requests.append(request.url))

    @property
    def outside(self) -> list[str]:
        return [url for url in self.requests if not url.startswith(("file:", "data:"))]


def opened(browser: Browser, path: Path, *, scheme: str = "light", width: int = 1280) -> tuple[Page, Seen]:
    context = browser.new_context(
        offline=True, color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": 900}
    )
    page = context.new_page()
    seen = Seen(page)
    page.goto(path.as_uri())
    return page, seen


@pytest.mark.parametrize("name", SAMPLES)
def test_report_opens_offline_without_a_console_message_or_a_request(
    chromium: Browser, reports: dict[str, Path], name: str
) -> None:
    page, seen = opened(chromium, reports[name])
    assert page.locator("h1").inner_text()
    assert seen.console == []
    assert seen.requests == [reports[name].as_uri()]
    page.context.close()


def test_attacks_neither_run_nor_reach_out_nor_leave_the_page(chromium: Browser, reports: dict[str, Path]) -> None:
    page, seen = opened(chromium, reports["hostile"])
    for summary in page.locator("summary").all():
        if summary.is_visible():
            summary.click()
    page.mouse.move(300, 300)
    page.wait_for_timeout(300)
    assert page.evaluate("window.owned") is None
    assert seen.outside == []
    assert page.url == reports["hostile"].as_uri()
    assert seen.console == []
    assert page.locator("script, iframe, object, embed, form, foreignObject, base").count() == 0
    page.context.close()


def test_attacks_do_not_change_the_shape_of_the_page(chromium: Browser, reports: dict[str, Path]) -> None:
    page, _ = opened(chromium, reports["hostile"])
    assert page.locator("body > *").evaluate_all("all => all.map(e => e.tagName)") == ["MAIN"]
    assert page.locator("h1, main, nav, footer").count() == 4
    assert page.locator("#verdict").count() == 1
    assert page.locator("footer").is_visible()
    assert (
        page.evaluate("[...document.querySelectorAll('.output')].some(e => getComputedStyle(e).position === 'fixed')")
        is False
    )
    page.context.close()


def test_policy_of_the_page_itself_stops_a_script_that_got_in(
    chromium: Browser, reports: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.html"
    page_with_script = (
        reports["healthy"].read_text(encoding="utf-8").replace("</main>", "<script>window.owned=1</script></main>")
    )
    broken.write_text(page_with_script, encoding="utf-8")
    page, _ = opened(chromium, broken)
    assert page.evaluate("window.owned") is None
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SAMPLES)
def test_every_text_has_enough_contrast(chromium: Browser, reports: dict[str, Path], name: str, scheme: str) -> None:
    page, _ = opened(chromium, reports[name], scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate(CONTRASTS) == []
    page.context.close()


def test_dark_theme_is_dark_and_its_charts_too(chromium: Browser, reports: dict[str, Path]) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        page, _ = opened(chromium, reports["leaky"], scheme=scheme)
        body = page.evaluate("getComputedStyle(document.body).backgroundColor")
        chart = page.locator(".figure svg path").first.evaluate("e => getComputedStyle(e).fill")
        shades[scheme] = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (body, chart)]
        page.context.close()
    assert all(value > 600 for value in shades["light"])
    assert all(value < 150 for value in shades["dark"])


@pytest.mark.parametrize("name", [*SAMPLES, "hostile"])
def test_narrow_screen_never_scrolls_sideways(chromium: Browser, reports: dict[str, Path], name: str) -> None:
    page, _ = opened(chromium, reports[name], width=360)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.context.close()


def test_wide_table_scrolls_inside_its_own_box(chromium: Browser, reports: dict[str, Path]) -> None:
    page, _ = opened(chromium, reports["leaky"], width=360)
    box = page.locator(".action .rb-reading").first
    assert box.evaluate("e => e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX === 'auto'")
    page.context.close()


def test_code_is_folded_and_opens_without_a_script(chromium: Browser, reports: dict[str, Path]) -> None:
    page, _ = opened(chromium, reports["leaky"])
    code = page.locator("details.code:not(.machine *)").first
    assert not code.locator("pre").is_visible()
    code.locator("summary").click()
    assert code.locator("pre").is_visible()
    page.context.close()


def test_what_is_to_be_copied_is_selected_whole_by_one_click(chromium: Browser, reports: dict[str, Path]) -> None:
    page, _ = opened(chromium, reports["leaky"])
    block = page.locator("pre.copy").last
    block.click()
    assert page.evaluate("getSelection().toString()").strip() == block.inner_text().strip()
    page.context.close()


def test_contents_lead_to_their_headings(chromium: Browser, reports: dict[str, Path]) -> None:
    page, seen = opened(chromium, reports["leaky"])
    page.get_by_role("navigation").get_by_role("link", name="Prevention").click()
    heading = page.get_by_role("heading", name="Prevention")
    assert heading.evaluate("e => e.getBoundingClientRect().top < innerHeight")
    assert seen.outside == []
    page.context.close()


def test_paper_shows_what_the_screen_folds_and_is_never_dark(chromium: Browser, reports: dict[str, Path]) -> None:
    page, _ = opened(chromium, reports["leaky"], scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    code = page.locator("details.code pre").first
    assert code.evaluate(
        "e => e.checkVisibility({contentVisibilityAuto: true}) && e.getBoundingClientRect().height > 0"
    )
    assert not page.locator("nav").is_visible()
    assert page.evaluate(CONTRASTS) == []
    page.context.close()


def test_structure_is_there_for_a_screen_reader(chromium: Browser, reports: dict[str, Path]) -> None:
    page, _ = opened(chromium, reports["leaky"])
    assert page.get_by_role("main").count() == 1
    assert (
        page.get_by_role("heading", level=1).inner_text().endswith("Idle-in-transaction leak (application api-leaky)")
    )
    assert page.get_by_role("img", name=re.compile("of 25 usable connection slots are taken")).count() == 1
    assert page.locator("[tabindex]").count() == 0
    page.context.close()

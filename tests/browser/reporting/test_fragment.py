"""The findings as a notebook shows them: legible on a light and on a dark theme of JupyterLab."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from runbook.reporting.fragment import findings_html
from tests.browser.reporting.test_report_page import CONTRASTS
from tests.unit.reporting.samples import leaky_findings, lock_findings

THEMES = {
    "plain": "background:#fff;color:#000",
    "jupyterlab-dark": "background:#111;--jp-content-font-color1:#fff;--jp-content-font-color2:rgba(255,255,255,.7);"
    "--jp-border-color2:#424242;--jp-layout-color2:#424242;--jp-error-color1:#ff8a80",
}


@pytest.mark.parametrize("theme", THEMES)
def test_fragment_has_enough_contrast(chromium: Browser, tmp_path: Path, theme: str) -> None:
    file = tmp_path / "fragment.html"
    body = findings_html(leaky_findings()) + findings_html(lock_findings())
    file.write_text(f'<!doctype html><meta charset="utf-8"><body style="{THEMES[theme]}">{body}', encoding="utf-8")
    page = chromium.new_context(offline=True).new_page()
    page.goto(file.as_uri())
    assert page.evaluate(CONTRASTS) == []
    page.context.close()

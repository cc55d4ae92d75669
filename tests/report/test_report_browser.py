"""The pages in a real browser: accessible, within the screen, silent on the console, and without a request."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from medtrust.report.compare import compare_page
from medtrust.report.html import render

PACKAGES = ("axe-core@4.14.1", "playwright-core@1.65.1")
SCRIPT = Path(__file__).parent / "browser.mjs"

pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    """A function that opens pages and returns what axe-core and the console say of them."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None or shutil.which("npm") is None:
        pytest.skip("needs Chromium and Node.js with npm (Debian: apt-get install chromium nodejs npm)")
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(SCRIPT, folder)
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", *PACKAGES]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot bring {' and '.join(PACKAGES)}: {done.stderr.strip()[:200]}")

    def look(*pages: Path) -> list[dict]:
        words = ["node", "browser.mjs", chromium, "node_modules/axe-core/axe.min.js", *map(str, pages)]
        kept = {**os.environ, "HOME": str(folder)}
        shown = subprocess.run(words, cwd=folder, env=kept, capture_output=True, text=True, check=False, timeout=500)
        assert shown.returncode == 0, shown.stderr
        return json.loads(shown.stdout)

    return look


def test_our_pages_have_no_finding(browser, tmp_path):
    """Report and comparison, light and dark, wide and 400 pixels: no violation, no request, no sideways scrolling."""
    from conftest import CASES

    pages, reports = [], []
    for name, build in CASES.items():
        folder = tmp_path / name
        folder.mkdir()
        reports.append(build(folder).to_dict())
        pages.append(folder / "report.html")
        pages[-1].write_bytes(render(reports[-1], folder))
    pages.append(tmp_path / "compare.html")
    pages[-1].write_bytes(compare_page(reports, list(CASES)))
    assert browser(*pages) == []


def test_the_check_sees_what_is_wrong(browser, tmp_path):
    """A page with a picture without alt text, pale text, a script and a foreign request is told off for each."""
    page = tmp_path / "bad.html"
    page.write_text(
        "<!DOCTYPE html><html><head><title>x</title><meta http-equiv='Content-Security-Policy' content=\"default-src "
        "'none'\"></head><body><img src='http://127.0.0.1:9/x.png'><p style='color:#eee'>pale</p>"
        "<div style='width:3000px'>wide</div></body></html>"
    )
    found = {finding["id"] for finding in browser(page)}
    assert {"image-alt", "html-has-lang", "console", "horizontal-scroll"} <= found

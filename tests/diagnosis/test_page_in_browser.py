"""The page of a diagnosis, as a browser lays it out on a phone and on a screen; the tests are skipped without
Chromium."""

import json
import re
import shutil
import subprocess
from html import escape, unescape

import numpy as np
import pytest

import headrace as hr

pytest.importorskip("matplotlib")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.programs, pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")]

QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-sync")
QUIET = (*QUIET, "--disable-background-networking", "--disable-component-update")
MEASURE = """<script>
const all = (what) => [...document.querySelectorAll(what)];
const shown = (one) => one.getBoundingClientRect().width > 0;
parent.postMessage(JSON.stringify({
  window: window.innerWidth, page: document.documentElement.scrollWidth,
  pictures: all("svg").map((one) => one.getBoundingClientRect().width),
  tables: all(".wide").map((one) => one.scrollWidth - one.clientWidth),
  sentences: all("td").filter((one) => shown(one) && one.textContent.length > 60)
    .map((one) => one.getBoundingClientRect().width),
  heads: all("th").filter(shown).length,
  letters: Math.min(...all("p, td").filter(shown).map((one) => parseFloat(getComputedStyle(one).fontSize))),
}), "*");
</script>"""
# A browser's window has a least width; a frame has none.
FRAME = """<!DOCTYPE html><title></title>
<script>addEventListener("message", (one) => { document.title = one.data; });</script>
<iframe style="width: %dpx; height: 900px; border: 0" srcdoc="%s"></iframe>"""


@pytest.fixture(scope="module")
def page():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 3))
    x[:, 1] += x[:, 0] ** 2
    flow = hr.MAF(3, transforms=1, hidden=(4,), seed=0)
    names = ["mass", "the mean absolute magnitude in the Hipparcos band", "a_name_that_has_no_place_to_be_broken"]
    return hr.diagnose(flow, x, training=x[:50], names=names).to_html()


def measured(text, width, folder):
    inner = escape(text.replace("</body>", MEASURE + "</body>"))
    (folder / "page.html").write_text(FRAME % (width, inner), encoding="utf-8")
    own = (f"--user-data-dir={folder}/profile", "--window-size=1400,900", "--virtual-time-budget=2000", "--dump-dom")
    command = [BROWSER, *QUIET, *own, f"file://{folder}/page.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    title = re.search("<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stderr
    return json.loads(unescape(title.group(1)))


@pytest.mark.costly
def test_on_a_phone(page, tmp_path):
    """On a phone, no element is wider than the page, and sentences fill the width."""
    found = measured(page, 390, tmp_path)
    assert found["window"] == 390
    assert found["page"] <= 390
    assert min(found["pictures"]) >= 330
    assert max(found["tables"]) <= 0
    assert min(found["sentences"]) >= 330
    assert found["heads"] == 0
    assert found["letters"] >= 15


@pytest.mark.costly
def test_on_a_screen(page, tmp_path):
    """On a screen, tables are tables, and pictures stand side by side."""
    found = measured(page, 1200, tmp_path)
    assert found["page"] <= 1200
    assert found["heads"] == page.count("<th") > 0
    assert max(found["tables"]) <= 0
    assert max(found["pictures"]) < 600
    assert min(found["pictures"]) >= 350  # letters of these pictures have ten pixels (test_diagnose.py)

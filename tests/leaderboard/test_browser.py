"""The site in a real browser, opened from disk: policy, network, sorting, search, filter, keyboard, width, contrast, size."""

from __future__ import annotations

import re
import shutil
import time

import pytest

from genbench.leaderboard import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )  # fmt: skip
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory, make):
    folder = tmp_path_factory.mktemp("site")
    records = make.full()
    records += [make.record(name, 0, 500.0 + n, curve=make.falling(500.0 + n)) for n, name in enumerate(make.hostile)]
    build(make.write(folder / "results", *records, grids=True), folder / "out")
    return folder / "out" / "site"


class Opened:
    """A page, what it complained of and what it asked for."""

    def __init__(self, browser, path, **context):
        self.said, self.asked = [], []
        self.page = browser.new_context(**context).new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_function("document.documentElement.dataset.ready === 'yes'")

    def names(self, where="tbody.models"):
        """Labels of the rows that are shown in the ranking."""
        rows = self.page.locator(f"table.sortable >> nth=0 >> css={where} > tr:visible .name")
        return [text.strip() for text in rows.all_inner_texts()]


@pytest.fixture
def track(browser, site):
    opened = Opened(browser, site / "mnist-3m.html", viewport={"width": 1280, "height": 900})
    yield opened
    opened.page.context.close()


def test_nothing_is_fetched_from_elsewhere_and_nothing_goes_wrong(browser, site):
    pages = [site / "index.html", site / "mnist-3m.html", site / "protocol.html", *sorted((site / "models").glob("*.html"))]
    assert len(pages) > 10
    for path in pages:
        opened = Opened(browser, path)
        broken = opened.page.evaluate("[...document.images].filter(i => i.loading !== 'lazy' && i.complete && !i.naturalWidth).length")
        assert (opened.said, broken) == ([], 0), path.name
        assert all(url.startswith("file://") for url in opened.asked), path.name
        opened.page.context.close()


def test_a_script_that_is_not_ours_does_not_run(browser, site):
    evil = site / "evil.html"
    text = (site / "mnist-3m.html").read_text()
    evil.write_text(text.replace('<main id="main">', "<main id='main'><script>document.title='owned'</script>"))
    assert "owned" in evil.read_text()
    opened = Opened(browser, evil)
    evil.unlink()
    assert opened.page.title() != "owned"
    assert any("Content Security Policy" in text for text in opened.said)  # so its absence elsewhere says something
    opened.page.context.close()


def test_columns_sort_the_better_end_first_and_controls_stay(track):
    controls = track.names("tbody.controls")
    assert controls == ["real-holdout", "pca-gaussian", "noise", "real data"]
    head = track.page.locator("table.sortable >> nth=0 >> css=thead tr:last-child th", has_text="train images/s")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert track.names()[:4] == ["vae", "gan", "conv-vae", "beta-vae"]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert track.names()[:2] == ["wgan-gp", "sn-gan"]
    assert track.names("tbody.controls") == controls


def test_search_and_filter_show_what_they_say(track):
    track.page.get_by_label("Search").fill("vae")
    assert sorted(track.names()) == ["beta-vae", "conv-vae", "vae"]
    assert re.fullmatch(r"3 of \d+ models", track.page.locator("form.tools output").first.inner_text())
    track.page.get_by_label("Search").fill("no such model")
    assert track.names() == []
    assert track.page.get_by_text("No model matches.").is_visible()
    track.page.locator("form.tools [type=reset]").first.click()
    track.page.get_by_label("Family").select_option("vae")
    assert sorted(track.names()) == ["beta-vae", "conv-vae", "vae"]


def test_the_keyboard_alone_searches_and_sorts(track):
    at = []
    for _ in range(12):
        track.page.keyboard.press("Tab")
        at.append(track.page.evaluate("document.activeElement.name || document.activeElement.className || document.activeElement.tagName"))
        if at[-1] == "search":
            break
    assert at[0] == "skip"
    assert at[-1] == "search"
    track.page.keyboard.type("VAE conv")
    assert track.names() == ["conv-vae"]  # every word must be there
    for _ in " conv":
        track.page.keyboard.press("Backspace")
    assert track.names() == ["conv-vae", "vae", "beta-vae"]  # by rank
    track.page.locator("table.sortable thead button").nth(1).focus()
    assert track.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    track.page.keyboard.press("Enter")
    assert track.names() == ["beta-vae", "conv-vae", "vae"]
    assert track.page.evaluate("document.querySelector('.scroll').tabIndex") == 0  # a region that scrolls can be scrolled with arrows


def test_filters_are_offered_where_they_separate_rows(track):
    offered = track.page.locator("form.tools select[name=words] >> nth=0").locator("option").all_inner_texts()
    assert offered == ["all rows", "with failed seeds", "without failed seeds"]
    track.page.locator("form.tools select[name=words]").first.select_option("+failed")
    assert track.names() == ["sn-gan"]


def test_a_column_can_be_put_away_and_comes_back(track):
    head = track.page.locator("table.sortable >> nth=0 >> css=thead tr:last-child th", has_text="recall").first
    assert head.is_visible()
    track.page.locator("form.tools .menu summary").first.click()
    track.page.locator("form.tools .menu label", has_text="recall").first.locator("input").uncheck()
    assert head.is_hidden()
    track.page.locator("form.tools [type=reset]").first.click()
    track.page.wait_for_timeout(50)
    assert head.is_visible()


def test_a_row_leads_to_its_model_and_the_keyboard_reaches_it(track):
    track.page.locator("tbody.models .name", has_text="dcgan").first.focus()
    track.page.keyboard.press("Enter")
    track.page.wait_for_url("**/models/dcgan-*")
    text = track.page.locator("body").inner_text()
    for said in ("arXiv:1511.06434", "genbench run dcgan --track mnist-3m"):
        assert said in text
    track.page.keyboard.press("Tab")
    assert track.page.evaluate("document.activeElement.className") == "skip"
    assert track.said == []


def test_a_phone_scrolls_the_table_not_the_page(browser, site):
    for path in (site / "index.html", site / "mnist-3m.html", site / "protocol.html", next((site / "models").glob("dcgan-*.html"))):
        opened = Opened(browser, path, viewport={"width": 390, "height": 800}, is_mobile=True)
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390, path.name
        opened.page.context.close()


CONTRAST = """() => {
  const light = c => {
    const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const behind = e => {
    for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$|transparent/.test(c)) return c; }
    return 'rgb(255, 255, 255)'; };
  const seen = {};
  for (const e of document.querySelectorAll('body *')) {
    if (!e.offsetParent || ![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const a = light(getComputedStyle(e).color), b = light(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) seen[`${e.tagName}.${e.className} ${ratio.toFixed(2)}`] = e.textContent.trim().slice(0, 30);
  }
  return seen; }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(browser, site, scheme):
    models = site / "models"
    for path in (site / "index.html", site / "mnist-3m.html", site / "protocol.html", *models.glob("dcgan-*"), *models.glob("sn-gan-*")):
        opened = Opened(browser, path, color_scheme=scheme)
        assert opened.page.evaluate(CONTRAST) == {}, path.name
        opened.page.context.close()


def test_five_hundred_rows_are_soon_ready(browser, tmp_path, make):
    records = [make.record(f"model-{n}", 0, 10.0 + n) for n in range(500)]
    build(make.write(tmp_path / "results", *records), tmp_path / "out")
    begun = time.monotonic()
    opened = Opened(browser, tmp_path / "out" / "site" / "mnist-3m.html")
    opened.page.get_by_label("Search").fill("model-499")
    assert opened.names() == ["model-499"]
    assert time.monotonic() - begun < 60  # about one second on two quiet cores; this only holds off what is quadratic
    opened.page.context.close()

"""The pages in a real browser: policy, images, sorting, width."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from genbench.leaderboard import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def chromium(tmp_path: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--hide-scrollbars",
        "--enable-logging=stderr",
    ]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri()],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


def probe(page: Path, script: str) -> Path:
    """A copy of the page, its script policy opened, that writes `script`'s answer into an attribute of the body."""
    text = re.sub(r"script-src &#39;sha256-.*?&#39;", "script-src 'unsafe-inline'", page.read_text())
    copy = page.with_name("probe.html")
    copy.write_text(
        text.replace(
            "</body>", f"<script>window.addEventListener('load', () => {{ document.body.dataset.answer = {script}; }});</script></body>"
        )
    )
    return copy


def answer(tmp_path: Path, page: Path, script: str) -> str:
    return html.unescape(re.search(r'data-answer="([^"]*)"', chromium(tmp_path, probe(page, script), "--dump-dom").stdout)[1])


@pytest.fixture
def page(tmp_path, make):
    records = make.full()
    records += [make.record(name, 0, 500.0 + n, curve=make.falling(500.0 + n)) for n, name in enumerate(make.hostile)]
    build(make.write(tmp_path / "results", *records, grids=True), tmp_path / "out")
    return tmp_path / "out" / "site" / "mnist-3m.html"


def test_the_policy_lets_the_page_work_and_nothing_else(tmp_path, page):
    done = chromium(tmp_path, page, "--window-size=1280,1600", f"--screenshot={tmp_path / 'page.png'}")
    assert "Content Security Policy" not in done.stderr
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (1280, 1600)
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50
    evil = page.with_name("evil.html")
    evil.write_text(page.read_text().replace("<main>", "<main><script>document.title = 'owned'</script>"))
    refused = chromium(tmp_path, evil, "--dump-dom")
    assert "<title>owned" not in refused.stdout
    assert "Content Security Policy" in refused.stderr  # so its absence above says something


def test_images_load_from_disk(tmp_path, page):
    page.write_text(page.read_text().replace(' loading="lazy"', ""))
    script = "[...document.images].filter(image => image.naturalWidth === 0).length + ' of ' + document.images.length"
    assert answer(tmp_path, page, script) == "0 of 20"


def test_columns_sort_and_controls_stay(tmp_path, page):
    script = """(() => {
      const table = document.querySelector('table.sortable'), heads = [...table.querySelectorAll('thead tr:last-child th')];
      const order = () => [...table.querySelectorAll('tbody.models .name')].map(n => n.textContent.trim()).join('/');
      const press = name => {
        const th = heads.find(h => h.textContent.trim().startsWith(name));
        th.querySelector('button').click();
        return th.getAttribute('aria-sort'); };
      const found = [press('train'), order(), press('train'), order(), press('IS'), order()];
      return found.concat([...table.querySelectorAll('tbody.controls .name')].map(n => n.textContent.trim()).join('/')).join(';'); })()"""
    first, fastest, again, slowest, _, by_score, controls = answer(tmp_path, page, script).split(";")
    assert (first, again) == ("descending", "ascending")
    assert fastest.startswith("vae/gan/conv-vae/beta-vae/dcgan")
    assert slowest.startswith("wgan-gp/sn-gan")
    assert by_score.startswith("dcgan/wgan-gp/conv-vae/vae/gan/beta-vae/sn-gan")  # sn-gan and what follows have no such score
    assert controls == "real-holdout/pca-gaussian/noise/real data"


def test_a_phone_scrolls_the_table_not_the_page(tmp_path, page):
    frame = page.with_name("frame.html")
    inside = probe(page, "document.documentElement.scrollWidth + ' ' + innerWidth")
    text = (
        inside.read_text()
        .replace("document.body.dataset.answer = ", "parent.postMessage(")
        .replace("; });</script>", ", '*'); });</script>")
    )
    inside.write_text(text)
    frame.write_text(
        f'<body><iframe src="{inside.name}" width="390" height="800"></iframe>'
        '<script>addEventListener("message", e => document.body.dataset.answer = e.data)</script></body>'
    )
    found = re.search(r'data-answer="(\d+) (\d+)"', chromium(tmp_path, frame, "--dump-dom", "--virtual-time-budget=3000").stdout)
    assert found is not None
    assert int(found[1]) <= int(found[2]) <= 390

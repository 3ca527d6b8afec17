"""Whole sessions in a real browser, by keyboard and by touch, by people whose ability is known."""

from __future__ import annotations

import shutil

import pytest

from genbench.judge import report
from genbench.judge.study import REAL
from genbench.judge.votes import Votes, database

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

DESK = {"viewport": {"width": 1280, "height": 800}}
INSIDE = "[scrollX, document.documentElement.scrollWidth <= innerWidth, document.body.scrollHeight <= innerHeight]"
"""Whether a page neither is scrolled nor can be."""
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 3}
WHOSE = "[...document.querySelectorAll('canvas')].map(c => c.getContext('2d').getImageData(0, 0, 1, 1).data[0])"
"""What the upper left pixels on the screen say of the pictures' owners (conftest.pixels)."""


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """A device -> a fresh page on it; nothing may go wrong in its console, and nothing be asked of anybody else."""
    pages = []

    def new(device, url):
        page = chromium.new_context(**device).new_page()
        page.set_default_timeout(20_000)
        pages.append((page, complaints := []))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if "Security Policy" in message.text else None)
        page.on("request", lambda request: None if request.url.startswith((url, "data:")) else complaints.append(request.url))
        page.goto(url)
        return page

    yield new
    for page, complaints in pages:
        page.context.close()
        assert complaints == []


def begin(page, nickname):
    page.fill("input[name=nickname]", nickname)
    page.check("input[name=consent]")
    page.click("button.go")
    ready(page)


def ready(page):
    """A trial is on the screen, and has been for so long that a double click is over."""
    page.wait_for_selector("#trial:not([hidden]) #answers:not(.waiting)")
    page.wait_for_timeout(160)


def counted(page, text):
    """So many answers are counted, says the page. (Its policy refuses a test's own functions.)"""
    page.wait_for_selector(f"#count:text-is('{text}')", state="attached")


def give(page, answer, touch):
    """Answer the trial on the screen, wait until it is counted, go through breaks; False after the last."""
    page.wait_for_timeout(210)  # faster ones are no people
    before = page.inner_text("#count")
    if touch:
        page.tap(f"#answers [data-answer={answer}]")
    else:
        keys = {"real": "ArrowLeft", "left": "ArrowLeft", "fake": "ArrowRight", "right": "ArrowRight", "tie": "ArrowDown"}
        page.keyboard.press(keys[answer])
    page.wait_for_selector(f"#count:not(:text-is('{before}'))", state="attached")
    page.wait_for_selector("#rest:not([hidden]), #end:not([hidden]), #trial:not([hidden]) #answers:not(.waiting):not(:has(.chosen))")
    if page.is_visible("#rest"):
        if touch:
            page.tap("#rest button")
        else:
            page.keyboard.press("Enter")
        ready(page)
    return not page.is_visible("#end")


def session(page, decide, touch):
    """From the first trial to the last page; `decide(owners)` says the answer."""
    while give(page, decide(page.evaluate(WHOSE)), touch):
        pass
    if touch:
        page.tap("#end button")
    else:
        page.keyboard.press("Enter")
    page.wait_for_selector("#hits")


def judgement(server):
    votes = Votes(database(server.results, server.study.track))
    try:
        return report.judge(server.study, votes.sheets(server.study.id))
    finally:
        votes.close()


def test_real_or_fake_by_keyboard_and_touch_gives_back_known_error_rates(serving, opened, make):
    study = make.study(models=2, trials=40, pool=60)
    server = serving(study)
    rates = {250: 0.3, 10: 0.5, 20: 0.1}  # real images, dcgan, vae
    for device, touch in ((DESK, False), (PHONE, True)):
        seen = dict.fromkeys(rates, 0)

        def fooled(owners, seen=seen):
            (whose,) = owners
            at = seen[whose] = seen[whose] + 1
            wrong = int(at * rates[whose] + 1e-9) > int((at - 1) * rates[whose] + 1e-9)
            return "real" if (whose == 250) != wrong else "fake"

        page = opened(device, server.url)
        assert page.is_visible(".fingers") == touch
        assert page.is_visible(".keys") != touch
        begin(page, "Phone" if touch else "Desk")
        session(page, fooled, touch)
        assert page.inner_text("#hits").endswith("%")
    found = judgement(server)
    scores = {model.label: {score.name: score for score in model.scores} for model in found.models}
    assert (found.people, found.votes) == (2, 80)
    for label, truth in (("dcgan", 0.5), ("vae", 0.1)):
        fakes = scores[label]["fakes_error"]
        assert fakes.value == pytest.approx(truth, abs=0.15)  # repeats, which do not count, move the exact share a little
        assert fakes.interval[0] <= truth <= fakes.interval[1]
    (reals,) = found.overall
    assert reals.interval[0] <= 0.3 <= reals.interval[1]
    assert scores["dcgan"]["hype"].value > scores["vae"]["hype"].value


def test_pairs_by_keyboard_and_touch_give_back_the_true_order(serving, opened, make):
    study = make.study("which-is-better", 3, trials=30, pool=60)
    server = serving(study)
    for device, touch in ((DESK, False), (PHONE, True)):
        met = {}

        def prefers(owners, met=met, every=3 if touch else 5):
            left, right = owners  # 10 dcgan, 20 vae, 30 noise: the lower is better; a tie each fourth time, the worse each third or fifth
            at = met[frozenset(owners)] = met.get(frozenset(owners), 0) + 1
            return "tie" if at % 4 == 0 else "left" if (left < right) == (at % every != 0) else "right"

        page = opened(device, server.url)
        begin(page, "")
        session(page, prefers, touch)
    found = judgement(server)
    preferred = {model.label: next(score for score in model.scores if score.name == "preferred") for model in found.models}
    assert (found.people, found.votes) == (2, 60)
    assert sorted(preferred, key=lambda label: -preferred[label].value) == ["dcgan", "vae", "noise"]
    assert preferred["vae"].value == pytest.approx(0.5, abs=0.08)
    assert preferred["vae"].interval[0] < 0.5 < preferred["vae"].interval[1]
    assert preferred["dcgan"].value > 0.6 > 0.4 > preferred["noise"].value
    assert sum(one.ties for one in found.meetings) > 8


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 1), (64, 3), (256, 3)])
@pytest.mark.parametrize("mode", ["real-or-fake", "which-is-better"])
def test_every_size_is_enlarged_by_whole_pixels_and_fits(serving, opened, make, mode, size, channels):
    server = serving(make.study(mode, 2, size=size, channels=channels, trials=20, pool=20))
    for device in (DESK, PHONE):
        page = opened(device, server.url)
        begin(page, "")
        ratio = page.evaluate("devicePixelRatio")
        told = page.evaluate(
            "[...document.querySelectorAll('canvas')].map(c => { const b = c.getBoundingClientRect(), p = c.getContext('2d'),"
            " k = c.width / Number(document.body.dataset.size), d = p.getImageData(0, 0, 3 * k, k).data;"
            " return [c.width, b.width, b.left, b.right, b.top, b.bottom, [...Array(3).keys()].map(i => new Set("
            " [...Array(k).keys()].map(j => d[4 * (i * k + j)])).size)]; })"
        )
        for pixels, width, left, right, top, bottom, levels in told:
            assert pixels % size == 0
            assert width * ratio == pytest.approx(pixels, abs=0.1)
            assert width >= 120
            assert 0 <= left < right <= device["viewport"]["width"]
            assert 0 <= top < bottom <= device["viewport"]["height"]
            assert levels == [1, 1, 1]  # a pixel is one flat square: nearest neighbour
        assert page.evaluate(INSIDE) == [0, True, True]
        buttons = [box.bounding_box() for box in page.query_selector_all("#answers button")]
        assert min(box["height"] for box in buttons) >= 44
        assert min(box["width"] for box in buttons) >= 88


EMPTY = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 9, 9).data].every(v => v === 0)"


def test_an_image_can_be_seen_for_its_time_and_no_longer(serving, opened, make):
    server = serving(make.study(size=32, trials=20, pool=20, exposure=300))
    page = opened(DESK, server.url)
    begin(page, "")
    for _ in range(8):
        page.wait_for_timeout(700)  # the image, and the noise after it, are gone
        make.wait_for(lambda: page.evaluate(EMPTY))  # a busy machine draws late
        assert give(page, "real", False)
    votes = Votes(database(server.results, server.study.track))
    (sheet,) = votes.sheets(server.study.id)
    votes.close()
    shown = sorted(vote.shown_ms for vote in sheet.votes)
    assert shown[0] >= 290
    assert shown[0] <= 400  # frames come late on a busy machine, but not each of eight
    assert shown[len(shown) // 2] <= 600  # it goes by itself: the answers came after 700
    assert all(vote.ms >= 700 for vote in sheet.votes)


def test_an_answer_is_taken_back_by_key_and_by_button(serving, opened, make):
    server = serving(make.study(trials=20, pool=20))
    page = opened(DESK, server.url)
    begin(page, "")
    first = page.evaluate("document.querySelector('canvas').toDataURL()")
    assert not page.is_visible("#undo")
    give(page, "real", False)
    assert page.inner_text("#count") == "1 of 22"
    page.keyboard.press("Backspace")
    counted(page, "0 of 22")
    ready(page)
    assert page.evaluate("document.querySelector('canvas').toDataURL()") == first
    assert not page.is_visible("#undo")
    give(page, "fake", False)
    page.click("#undo")
    counted(page, "0 of 22")
    ready(page)
    give(page, "real", False)
    votes = Votes(database(server.results, server.study.track))
    (sheet,) = votes.sheets(server.study.id)
    votes.close()
    assert [vote.answer for vote in sheet.votes] == ["real", "fake", "real"]
    assert sheet.counted[0].answer == "real"


def test_keys_held_down_or_pressed_too_early_answer_nothing(serving, opened, make):
    server = serving(make.study(trials=20, pool=20))
    page = opened(DESK, server.url)
    begin(page, "")
    page.keyboard.down("ArrowLeft")
    for _ in range(5):
        page.keyboard.down("ArrowLeft")  # repeats of a key held
    counted(page, "1 of 22")
    ready(page)
    page.wait_for_timeout(200)
    page.keyboard.up("ArrowLeft")
    assert page.inner_text("#count") == "1 of 22"
    page.keyboard.press("ArrowDown")  # no answer of this mode
    page.keyboard.press("Control+ArrowLeft")
    page.wait_for_timeout(200)
    assert page.inner_text("#count") == "1 of 22"


CLICK_AS_THE_SECOND_PICTURE_COMES = """() => {
  const answers = document.querySelector("#answers"), count = document.querySelector("#count");
  new MutationObserver((_, watch) => {
    if (answers.classList.contains("waiting") || count.textContent !== "1 of 22") return;
    watch.disconnect();
    answers.querySelector("[data-answer=real]").click();
    answers.classList.add("clicked");
  }).observe(answers, {attributes: true, attributeFilter: ["class"]});
}"""


def test_a_double_click_answers_one_trial(serving, opened, make):
    server = serving(make.study(trials=20, pool=20))
    page = opened(DESK, server.url)
    begin(page, "")
    page.evaluate(CLICK_AS_THE_SECOND_PICTURE_COMES)
    page.dblclick("#answers [data-answer=real]", delay=10)
    counted(page, "1 of 22")
    page.wait_for_selector("#answers.clicked")
    page.wait_for_timeout(250)
    assert page.inner_text("#count") == "1 of 22"


def test_the_page_does_not_go_on_before_a_vote_is_on_disk(serving, opened, make):
    server = serving(make.study(trials=20, pool=20))
    page = opened(DESK, server.url)
    begin(page, "")
    give(page, "real", False)
    ready(page)
    server.kill()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#status.problem")
    assert "Not saved yet" in page.inner_text("#status")
    assert page.inner_text("#count") == "1 of 22"
    server.start()
    counted(page, "2 of 22")
    ready(page)
    assert page.inner_text("#status") == ""
    page.reload()
    ready(page)
    assert page.inner_text("#count") == "2 of 22"  # back where the person was
    votes = Votes(database(server.results, server.study.track))
    (sheet,) = votes.sheets(server.study.id)
    votes.close()
    assert [(vote.trial, vote.attempt, vote.answer) for vote in sheet.votes] == [(0, 0, "real"), (1, 0, "fake")]


def test_a_page_of_another_site_can_neither_vote_nor_read_nor_frame(serving, opened, make, chromium):
    """The other site is a second server of our own kind under another name and port, told to attack."""
    server = serving(make.study(trials=20, pool=20))
    page = opened(DESK, server.url)
    begin(page, "")
    hostile = page.context.new_page()
    port = server.url.rpartition(":")[2]
    hostile.route("http://evil.example/", lambda route: route.fulfill(content_type="text/html", body="<title>x</title><body></body>"))
    hostile.goto("http://evil.example/")
    told = hostile.evaluate(
        """async (url) => {
          const tried = [];
          const body = JSON.stringify({ trial: 0, attempt: 0, answer: "real", ms: 1 });
          for (const options of [{ mode: "no-cors" }, {}, { headers: { "Content-Type": "application/json" } }]) {
            const asked = { method: "POST", credentials: "include", body, ...options };
            tried.push(await fetch(url + "/vote", asked).then((a) => a.type, () => "refused")); }
          tried.push(await fetch(url + "/state", { credentials: "include" }).then((a) => a.text(), () => "refused"));
          const form = document.createElement("form");
          Object.assign(form, { method: "post", action: url + "/leave", target: "_blank" });
          document.body.append(form);
          form.submit();
          const frame = document.createElement("iframe");
          frame.src = url + "/judge";
          document.body.append(frame);
          await new Promise((done) => { frame.onload = done; setTimeout(done, 3000); });
          try { tried.push(frame.contentDocument ? "framed" : "refused"); } catch { tried.push("refused"); }
          return tried; }""",
        f"http://127.0.0.1:{port}",
    )
    assert told[1:] == ["refused"] * 4
    votes = Votes(database(server.results, server.study.track))
    (sheet,) = votes.sheets(server.study.id)
    votes.close()
    assert sheet.votes == ()
    assert give(page, "real", False)  # the session is as it was
    assert REAL in server.study.pictures

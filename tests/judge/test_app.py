"""What the page lets in, what it gives away, and that a vote counts once: through the ASGI application itself."""

from __future__ import annotations

import asyncio
import io
import json
import re

import httpx
import numpy as np
import pytest
from PIL import Image

from genbench.errors import GenbenchError
from genbench.judge.app import Desk, make_app
from genbench.judge.guard import Gate
from genbench.judge.serve import bind, gate_for, is_loopback
from genbench.judge.votes import Votes, database

HOST = "127.0.0.1:8420"
URL = f"http://{HOST}"


class Client:
    """httpx's asynchronous client on the application, called as if it were not; cookies are kept."""

    def __init__(self, app) -> None:
        self.app = app
        self.cookies = httpx.Cookies()

    def request(self, method, url, **kwargs):
        async def ask():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, cookies=self.cookies) as client:
                answer = await client.request(method, url, **kwargs)
                self.cookies = client.cookies
                return answer

        return asyncio.run(ask())

    def get(self, url, **kwargs):
        return self.request("GET", url, **kwargs)

    def post(self, url, **kwargs):
        return self.request("POST", url, **kwargs)


@pytest.fixture
def desk(tmp_path, make):
    def opened(study, token="", name="results"):
        votes = Votes(database(tmp_path / name, study.track), create=True)
        open_votes.append(votes)
        desk = Desk(study, votes, make.pictures(study))
        return desk, make_app(desk, Gate(frozenset({HOST, "localhost:8420"}), token))

    open_votes = []
    yield opened
    for votes in open_votes:
        votes.close()


@pytest.fixture
def joined(desk, make):
    """A desk and somebody who has begun."""
    desk, app = desk(make.study())
    browser = make.Browser(Client(app), URL)
    browser.join("Ada L.")
    return desk, browser


def votes_of(desk):
    (sheet,) = desk.votes.sheets(desk.study.id)
    return sheet


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8420", "127.0.0.1", "127.0.0.1:8421", "127.0.0.1:8420.evil.example"])
def test_another_host_is_refused_everywhere(joined, host):
    _, browser = joined
    for path in ("/", "/judge", "/state", "/judge.js"):
        assert browser.client.get(URL + path, headers={"Host": host}).status_code == 421
    assert browser.client.post(URL + "/vote", headers={"Host": host, "Origin": f"http://{host}"}, content="{}").status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8420", f"{URL}.evil.example"])
def test_a_post_from_another_origin_is_refused_and_changes_nothing(joined, origin):
    desk, browser = joined
    state = browser.state()
    body = {"trial": 0, "attempt": 0, "answer": "real", "ms": 5}
    assert browser.post("/vote", body, Origin=origin).status_code == 403
    assert browser.post("/vote", body, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert browser.state() == state
    assert not votes_of(desk).votes


def test_a_post_without_origin_is_refused(joined):
    _, browser = joined
    sent = {"X-CSRF-Token": browser.csrf, "Content-Type": "application/json"}
    assert browser.client.post(URL + "/vote", content="{}", headers=sent).status_code == 403


def test_without_its_token_or_with_anothers_nothing_is_changed(joined, desk, make):
    ours, browser = joined
    body = {"trial": 0, "attempt": 0, "answer": "real", "ms": 5}
    for token in ("", "0" * 32, ours.mac("csrf", "another's")):
        assert browser.post("/vote", body, **{"X-CSRF-Token": token}).status_code == 403
    assert browser.post("/vote", body, **{"Content-Type": "text/plain"}).status_code == 415  # what a form elsewhere could send
    assert browser.client.post(URL + "/leave", data={"csrf": "0" * 32}, headers={"Origin": URL}).status_code == 403
    assert not votes_of(ours).votes
    stranger = make.Browser(Client(browser.client.app), URL)
    stranger.csrf = browser.csrf
    assert stranger.post("/vote", body).status_code == 403


@pytest.mark.parametrize("path", ["/vote", "/undo", "/finish", "/join", "/leave"])
def test_nothing_is_changed_by_get(joined, path):
    desk, browser = joined
    answer = browser.client.get(f"{URL}{path}?trial=0&attempt=0&answer=real&ms=5&csrf={browser.csrf}")
    assert answer.status_code == 405
    assert not votes_of(desk).votes
    assert browser.client.request("PUT", URL + path, headers={"Origin": URL}).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/picture/../judge.js", "/picture/..%2f..%2fetc%2fpasswd", "/picture/%2e%2e/%2e%2e/etc/passwd", "/../genbench/judge/app.py",
        "/picture//etc/passwd", "/picture/real/3", "/picture/real%2F3", "/judge.js/../app.py", "/start.html.j2", "/judge/", "/picture/é",
    ],
)  # fmt: skip
def test_no_path_leads_to_a_file_or_to_a_picture_by_its_key(joined, path):
    _, browser = joined
    answer = browser.client.get(URL + path, follow_redirects=True)
    assert answer.status_code == 404 or answer.headers["content-type"].startswith(("text/html", "text/javascript"))
    for secret in (b"root:", b"def make_app", b"{%", b"\x89PNG"):
        assert secret not in answer.content


def test_a_picture_is_for_one_person_and_for_the_coming_trials(joined, make):
    desk, browser = joined
    (person,) = [sheet.person for sheet in desk.votes.sheets(desk.study.id)]
    names = [[desk.mac("picture", person.id, one.number, 0)] for one in desk.trials(person)]
    assert [one["pictures"] for one in browser.state()["next"]] == names[:4]
    assert browser.picture(names[3][0]).status_code == 200
    assert browser.picture(names[4][0]).status_code == 404
    other = make.Browser(Client(browser.client.app), URL)
    assert other.picture(names[0][0]).status_code == 404
    other.join()
    assert other.picture(names[0][0]).status_code == 404
    assert not {name for one in other.state()["next"] for name in one["pictures"]} & {name for own in names for name in own}


@pytest.mark.parametrize(("mode", "channels", "size"), [("real-or-fake", 1, 8), ("real-or-fake", 3, 64), ("which-is-better", 3, 16)])
def test_nothing_that_is_sent_tells_the_model(desk, make, mode, channels, size):
    desk, app = desk(make.study(mode, 3, size=size, channels=channels, trials=20))
    browser = make.Browser(Client(app), URL)
    browser.join()
    sent, heads, lengths, order = [], [], set(), []
    state = browser.state()
    while state["next"]:
        for name in state["next"][0]["pictures"]:
            answer = browser.picture(name)
            lengths.add(len(answer.content))
            heads.append(dict(answer.headers))
            with Image.open(io.BytesIO(answer.content)) as image:
                assert image.size == (size, size)
                assert image.mode == ("L" if channels == 1 else "RGB")
                order.append(np.asarray(image).reshape(size, size, -1)[0, 0, 0])
        for path in ("/judge", "/state"):
            answer = browser.client.get(URL + path)
            sent.append(answer.text + repr(sorted(answer.headers.items())))
        state = browser.vote(state, "real" if mode == "real-or-fake" else "tie").json()
        sent.append(json.dumps(state))
    browser.post("/finish", {})
    sent += [browser.client.get(URL + path).text for path in ("/thanks", "/judge.js", "/judge.css")]
    assert len(set(order)) == (4 if mode == "real-or-fake" else 3)  # pictures of everybody did come
    assert len(lengths) == 1
    assert all(head == heads[0] for head in heads)
    known = [*make.rows[:3], *make.labels[:3], *desk.study.every_picture, "aaaa", "repeats"]
    for text in sent:
        told = re.sub(r"\b[0-9a-f]{32}\b", "", text)  # a keyed hash tells nothing, and now and then has four equal digits in a row
        assert not [word for word in known if word in told]
    names = re.findall(r"[0-9a-f]{32}", " ".join(sent))
    assert len(set(names)) == len(order) + 1  # each showing under a name of its own, repeats too; and the CSRF token


def test_pictures_come_as_they_are(desk, make):
    study = make.study(channels=3, size=16)
    desk, app = desk(study)
    browser = make.Browser(Client(app), URL)
    browser.join()
    (sheet,) = desk.votes.sheets(study.id)
    with Image.open(io.BytesIO(browser.picture(browser.state()["next"][1]["pictures"][0]).content)) as image:
        assert np.array_equal(np.moveaxis(np.asarray(image), -1, 0), make.pixels(study)[sheet.trials[1].left])


def test_headers_keep_the_page_to_itself(joined):
    _, browser = joined
    for path in ("/", "/judge", "/state", "/judge.js", "/nowhere", "/picture/0"):
        headers = browser.client.get(URL + path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
    fresh = browser.client.app
    cookie = Client(fresh).get(URL + "/").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def test_the_first_answer_counts_and_a_replay_is_harmless(joined):
    desk, browser = joined
    state = browser.state()
    first = browser.vote(state, "fake", 900)
    again = browser.vote(state, "fake", 5)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    other = browser.vote(state, "real", 5)
    assert other.status_code == 409
    assert other.json()["done"] == 1
    assert [(vote.answer, vote.ms) for vote in votes_of(desk).votes] == [("fake", 900)]


def test_trials_are_answered_in_turn(joined):
    desk, browser = joined
    for trial, attempt in ((1, 0), (44, 0), (0, 1), (99, 0)):
        assert browser.post("/vote", {"trial": trial, "attempt": attempt, "answer": "real", "ms": 5}).status_code == 409
    assert browser.post("/vote", {"trial": 0, "attempt": 0, "answer": "left", "ms": 5}).status_code == 409
    for body in ({"trial": -1}, {"trial": True}, {"trial": "0"}, {}, {"trial": 0, "attempt": 0, "ms": 1e400}, [], "x"):
        assert browser.post("/vote", body).status_code == 400
    assert browser.post("/finish", {}).status_code == 409
    assert not votes_of(desk).votes


def test_after_an_undo_the_new_answer_counts_and_old_requests_change_nothing(joined):
    desk, browser = joined
    state = browser.state()
    after = browser.vote(state, "real").json()
    assert after["undo"] == {"trial": 0, "attempt": 0}
    undone = browser.post("/undo", after["undo"]).json()
    assert (undone["done"], undone["attempt"], undone["undo"]) == (0, 1, None)
    assert undone["next"] == state["next"]
    assert browser.post("/undo", after["undo"]).json() == undone  # replayed
    assert browser.vote(state, "real").json() == undone  # the undone vote, replayed
    assert browser.post("/undo", {"trial": 0, "attempt": 1}).status_code == 409
    last = browser.vote(undone, "fake").json()
    assert last["done"] == 1
    assert browser.post("/undo", after["undo"]).json() == last  # replayed late
    sheet = votes_of(desk)
    assert [(vote.attempt, vote.answer) for vote in sheet.votes] == [(0, "real"), (1, "fake")]
    assert sheet.counted[0].answer == "fake"


def test_only_the_last_answer_can_be_undone_and_none_after_the_end(joined):
    desk, browser = joined
    state = browser.state()
    while state["next"]:
        state = browser.vote(state, "real").json()
    assert browser.post("/undo", {"trial": 3, "attempt": 0}).status_code == 409
    assert browser.post("/finish", {}).status_code == 200
    assert browser.post("/finish", {}).status_code == 200
    assert browser.state()["undo"] is None
    assert browser.post("/undo", {"trial": 43, "attempt": 0}).status_code == 409
    assert len(votes_of(desk).counted) == 44
    assert browser.client.get(URL + "/judge").headers["location"] == "/thanks"


def test_the_last_page_tells_a_persons_own_hit_rate(joined, make):
    _, browser = joined
    state = browser.state()
    while state["next"]:
        with Image.open(io.BytesIO(browser.picture(state["next"][0]["pictures"][0]).content)) as image:
            real = np.asarray(image)[0, 0] == 250
        dcgan = np.asarray(image)[0, 0] == 10
        state = browser.vote(state, "real" if real or dcgan else "fake").json()  # knows all but dcgan's, which are half of the fakes
    browser.post("/finish", {})
    page = browser.client.get(URL + "/thanks").text
    assert "Ada L." in page
    assert '<span id="hits">75\u00a0%</span>' in page
    assert "right about 30 of 40 images" in page
    assert "<dd>20 of 20</dd>" in page
    assert "<dd>10 of 20</dd>" in page
    assert "<dd>4 of 4</dd>" in page


def test_nobody_takes_part_without_consent_and_a_bad_nickname_is_no_markup(desk, make):
    desk, app = desk(make.study())
    browser = make.Browser(Client(app), URL)
    page = browser.client.get(URL + "/").text
    csrf = re.search(r'name="csrf" value="([0-9a-f]{32})"', page)[1]
    for form in ({"nickname": "Bob"}, {"nickname": "<script>alert(1)</script>", "consent": "yes"}, {"nickname": "=A1", "consent": "yes"}):
        answer = browser.client.post(URL + "/join", data={"csrf": csrf, **form}, headers={"Origin": URL})
        assert answer.status_code == 422
        assert "<script>" not in answer.text
    assert desk.votes.sheets(desk.study.id) == []
    browser.join("Zoë 2")
    assert votes_of(desk).person.nickname == "Zoë 2"
    assert browser.client.get(URL + "/").headers["location"] == "/judge"


def test_another_person_can_begin_in_the_same_browser(joined):
    desk, browser = joined
    before = browser.csrf
    browser.client.post(URL + "/leave", data={"csrf": browser.csrf}, headers={"Origin": URL})
    browser.join("Next")
    assert browser.csrf != before
    assert sorted(sheet.person.nickname for sheet in desk.votes.sheets(desk.study.id)) == ["Ada L.", "Next"]


def test_what_is_stored_of_a_person_is_the_nickname_and_nothing_of_their_browser(joined):
    desk, browser = joined
    browser.client.get(URL + "/judge", headers={"User-Agent": "Telltale/1.0", "X-Forwarded-For": "198.51.100.7"})
    browser.vote(browser.state(), "real")
    stored = b"".join(path.read_bytes() for path in desk.votes.path.parent.iterdir())
    token = browser.client.cookies[desk.cookie]
    for secret in (b"Telltale", b"198.51", b"127.0.0.1", b"testclient", token.encode()):
        assert secret not in stored
    assert b"Ada L." in stored


def test_large_and_endless_bodies_are_refused(joined):
    _, browser = joined
    sent = {"Origin": URL, "X-CSRF-Token": browser.csrf, "Content-Type": "application/json"}
    assert browser.client.post(URL + "/vote", content=b"[" * 5000, headers=sent).status_code == 413

    async def chunks():
        yield b"{}"

    assert browser.client.post(URL + "/vote", content=chunks(), headers=sent).status_code == 413
    assert browser.client.post(URL + "/vote", content=b"[" * 3000, headers=sent).status_code == 400


def test_elsewhere_than_loopback_everything_takes_the_token(desk, make):
    _, app = desk(make.study(), token="s3cret-s3cret-s3cret")
    client = Client(app)
    for path in ("/", "/judge", "/state", "/judge.js", "/?token=wrong"):
        assert client.get(URL + path).status_code == 403
    assert client.post(URL + "/join?token=s3cret-s3cret-s3cret", headers={"Origin": URL}).status_code == 403
    entered = client.get(URL + "/?token=s3cret-s3cret-s3cret")
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    assert "HttpOnly" in entered.headers["set-cookie"]
    browser = make.Browser(client, URL)
    browser.join()
    assert browser.vote(browser.state(), "real").status_code == 200


def test_a_link_from_another_site_finds_the_session_again(joined):
    _, browser = joined
    strict = Client(browser.client.app).get(URL + "/judge", headers={"Sec-Fetch-Site": "cross-site"})
    assert 'http-equiv="refresh"' in strict.text  # asks once more, from here
    assert "set-cookie" not in strict.headers
    other = {"Sec-Fetch-Site": "cross-site", "Cookie": "_xsrf=2|of|another|page"}  # lax cookies of other pages at this host do come
    assert 'http-equiv="refresh"' in Client(browser.client.app).get(URL + "/", headers=other).text


def test_cookies_of_other_pages_at_this_host_are_no_hindrance(desk, make):
    _, app = desk(make.study(), token="s3cret-s3cret-s3cret")
    client = Client(app)
    linked = client.get(URL + "/", headers={"Sec-Fetch-Site": "cross-site", "Cookie": "_xsrf=1"})
    assert 'http-equiv="refresh"' in linked.text  # after the redirect of a followed link, before our strict cookie comes
    client.get(URL + "/?token=s3cret-s3cret-s3cret")
    ((name, value),) = client.cookies.items()
    for before in ('prefs={"a": "b, c"}; ', "odd[]name=1; ", "=; "):
        fresh = Client(app)
        assert fresh.get(URL + "/", headers={"Cookie": f"{before}{name}={value}"}).status_code == 200
    assert name != Gate(frozenset(), "another-token-16-x").cookie


def test_it_listens_on_loopback_unless_told_otherwise_with_a_token():
    where = bind("127.0.0.1", 0)
    try:
        assert where.getsockname()[0] == "127.0.0.1"
        with pytest.raises(GenbenchError, match="--port 0"):
            bind("127.0.0.1", where.getsockname()[1])
    finally:
        where.close()
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert gate_for("127.0.0.1", 8420, "", []).hosts == {"127.0.0.1:8420", "localhost:8420", "[::1]:8420"}
    for address, names in (("0.0.0.0", ["lab.local"]), ("192.0.2.7", []), ("127.0.0.1", ["lab.local"])):
        with pytest.raises(GenbenchError, match="--token"):
            gate_for(address, 8420, "short", names)
    with pytest.raises(GenbenchError, match="--name"):
        gate_for("0.0.0.0", 8420, "x" * 16, [])
    assert gate_for("0.0.0.0", 80, "x" * 16, ["Lab.local"]).hosts == {"lab.local", "lab.local:80"}
    assert "127.0.0.2:8420" in gate_for("127.0.0.2", 8420, "", []).hosts
    behind = gate_for("127.0.0.1", 8420, "x" * 16, ["lab.example", "lab.example:8443"]).hosts  # a proxy that keeps Host
    assert behind >= {"lab.example", "lab.example:8420", "lab.example:8443"}
    assert "lab.example:8443:8420" not in behind
    with pytest.raises(GenbenchError, match="no IP address"):
        is_loopback("example.org")

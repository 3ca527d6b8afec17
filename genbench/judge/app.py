"""The page's routes: who asks, what they are asked next, what they answered. What a browser gets never names a model.

A picture is fetched under a name that is made for one person and one trial, the last trial or the next few, and comes from memory.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from genbench.judge.guard import Gate, Guard
from genbench.judge.pictures import Pictures
from genbench.judge.study import BREAK_EVERY, REAL, Study
from genbench.judge.trials import Trial, alike, owner
from genbench.judge.votes import ConflictError, Person, Place, Sheet, Vote, Votes, nickname_of

_PAGE = Path(__file__).parent / "page"
_AHEAD = 4
"""Trials whose pictures may be fetched before they are asked: how long one takes to come then tells nothing."""
_FILES = {"judge.js": "text/javascript; charset=utf-8", "judge.css": "text/css; charset=utf-8"}
_WHAT = {"real-or-fake": "Real or generated?", "which-is-better": "Which one looks more real?"}


class Desk:
    """One study, open: its votes, its pictures and its secret."""

    def __init__(self, study: Study, votes: Votes, pictures: Pictures) -> None:
        self.study = study
        self.votes = votes
        self.pictures = pictures
        self.secret = votes.enter_study(study)
        self.cookie = f"genbench-judge-{study.id}"
        self._trials: dict[str, tuple[Trial, ...]] = {}

    def mac(self, *parts: object) -> str:
        """Anything -> 32 hex digits that only this study's secret gives."""
        return hmac.new(self.secret, "/".join(map(str, parts)).encode(), hashlib.sha256).hexdigest()[:32]

    def trials(self, person: Person) -> tuple[Trial, ...]:
        """A person's trials, which never change."""
        if person.id not in self._trials:
            self._trials[person.id] = self.votes.trials(person.id)
        return self._trials[person.id]

    def names(self, person: Person, place: Place) -> list[tuple[int, list[str]]]:
        """The next trials and what their pictures are called."""
        coming = self.trials(person)[place.done : place.done + _AHEAD]
        return [(one.number, [self.mac("picture", person.id, one.number, side) for side in range(len(one.pictures))]) for one in coming]

    def picture(self, person: Person, name: str) -> bytes | None:
        """The picture of that name as PNG, where it is one of this person's last or next trials."""
        place = self.votes.place(person.id)
        for one in self.trials(person)[max(0, place.done - 1) : place.done + _AHEAD]:
            for side, key in enumerate(one.pictures):
                if hmac.compare_digest(self.mac("picture", person.id, one.number, side).encode(), name.encode()):
                    return self.pictures.png(key)
        return None

    def state(self, person: Person) -> dict[str, Any]:
        """Where a person stands, for the page."""
        place = self.votes.place(person.id)
        return {
            "done": place.done,
            "total": place.total,
            "attempt": place.attempt,
            "undo": None if place.undo is None else {"trial": place.undo.trial, "attempt": place.undo.attempt},
            "next": [{"trial": number, "pictures": names} for number, names in self.names(person, place)],
        }


def make_app(desk: Desk, gate: Gate) -> ASGIApp:
    """A study and who is let in -> the ASGI application."""
    page = jinja2.Environment(loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    files = {name: (_PAGE / name).read_bytes() for name in _FILES}

    def render(name: str, **values: Any) -> HTMLResponse:
        about = {"study": desk.study, "question": _WHAT[desk.study.mode], "shown": desk.study.trials + desk.study.repeats}
        return HTMLResponse(page.get_template(name).render(**about, **values))

    async def start(request: Request) -> Response:
        """Consent, or back to where the person was."""
        token, person = await _whose(request, desk)
        if person is not None:
            return RedirectResponse("/thanks" if person.finished else "/judge", 303)
        token = token or secrets.token_urlsafe(32)
        answer = render("start.html.j2", csrf=_csrf(desk, token), minutes=_minutes(desk.study), problem="", nickname="")
        return _with_token(answer, desk, token)

    async def join(request: Request) -> Response:
        """Nickname and consent -> a person with trials."""
        form = await request.form()
        token, person = await _whose(request, desk)
        _check_csrf(desk, token, str(form.get("csrf", "")))
        if person is None:
            typed = str(form.get("nickname", ""))[:100]
            nickname = nickname_of(typed) if typed.strip() else "anonymous"
            problem = "" if nickname else "A nickname has letters and digits, blanks, dots and hyphens, 30 at most; none is fine too."
            problem = problem if form.get("consent") == "yes" else "Please tick the box if you agree; otherwise just close this page."
            if problem:
                values = {"csrf": _csrf(desk, token), "minutes": _minutes(desk.study), "problem": problem, "nickname": typed}
                answer = render("start.html.j2", **values)
                answer.status_code = 422
                return answer
            await run_in_threadpool(desk.votes.enter, desk.study, token, nickname)
        return RedirectResponse("/judge", 303)

    async def judge(request: Request) -> Response:
        """The page of trials."""
        token, person = await _whose(request, desk)
        if person is None or person.finished:
            return RedirectResponse("/thanks" if person else "/", 303)
        return render("judge.html.j2", csrf=_csrf(desk, token), every=BREAK_EVERY)

    async def thanks(request: Request) -> Response:
        """What the person made of it."""
        token, person = await _whose(request, desk)
        if person is None or not person.finished:
            return RedirectResponse("/judge" if person else "/", 303)
        sheet = await run_in_threadpool(desk.votes.sheet, person.id)
        return render("thanks.html.j2", csrf=_csrf(desk, token), nickname=person.nickname, result=own_result(sheet))

    async def leave(request: Request) -> Response:
        """Make room for another person at this browser."""
        form = await request.form()
        token, _ = await _whose(request, desk)
        _check_csrf(desk, token, str(form.get("csrf", "")))
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(desk.cookie, httponly=True, samesite="strict")
        return answer

    async def picture(request: Request) -> Response:
        _, person = await _whose(request, desk)
        if person is None:
            return PlainTextResponse("No such picture.", 404)
        content = await run_in_threadpool(desk.picture, person, request.path_params["name"])
        return Response(content, media_type="image/png") if content else PlainTextResponse("No such picture.", 404)

    async def state(request: Request) -> Response:
        _, person = await _whose(request, desk)
        return JSONResponse(await run_in_threadpool(desk.state, person)) if person else _nobody()

    def changes(what: Callable[[Person, Mapping[str, Any]], object]) -> Callable[[Request], Awaitable[Response]]:
        """A route that changes something, from the page's script: CSRF token in a header, JSON in, the person's state out."""

        async def route(request: Request) -> Response:
            token, person = await _whose(request, desk)
            _check_csrf(desk, token, request.headers.get("x-csrf-token", ""))
            if person is None:
                return _nobody()
            try:
                asked = await _json(request)
                await run_in_threadpool(what, person, asked)
            except ConflictError as conflict:
                return JSONResponse({"problem": str(conflict), **await run_in_threadpool(desk.state, person)}, 409)
            return JSONResponse(await run_in_threadpool(desk.state, person))

        return route

    routes = [
        Route("/", start), Route("/join", join, methods=["POST"]), Route("/judge", judge), Route("/thanks", thanks),
        Route("/leave", leave, methods=["POST"]), Route("/state", state), Route("/picture/{name:str}", picture),
        Route("/vote", changes(lambda person, asked: desk.votes.vote(desk.study, person.id, _vote(asked))), methods=["POST"]),
        Route("/undo", changes(lambda person, asked: desk.votes.undo(person.id, *_numbers(asked, "trial", "attempt"))), methods=["POST"]),
        Route("/finish", changes(lambda person, asked: desk.votes.finish(person.id)), methods=["POST"]),
        *(Route(f"/{name}", partial(_file, files[name], kind)) for name, kind in _FILES.items()),
    ]  # fmt: skip
    return Guard(Starlette(routes=routes), gate)


def own_result(sheet: Sheet) -> dict[str, int]:
    """A finished sheet -> what its person is told of themselves, over first showings: hits on real and on generated images; for all
    modes, how many repeats were answered alike. Says nothing of any model."""
    counted = sheet.counted
    found = {"reals": 0, "reals_right": 0, "fakes": 0, "fakes_right": 0, "repeats": 0, "alike": 0, "first": 0}
    for one in sheet.trials:
        answer = counted[one.number].answer if one.number in counted else None
        if answer is None:
            continue
        if one.repeats is not None:
            before = counted.get(one.repeats)
            found["repeats"] += before is not None
            found["alike"] += before is not None and alike(before.answer, answer, pair=bool(one.right))
            continue
        found["first"] += 1
        if not one.right:
            kind = "reals" if owner(one.left) == REAL else "fakes"
            found[kind] += 1
            found[f"{kind}_right"] += answer == ("real" if kind == "reals" else "fake")
    return found


async def _whose(request: Request, desk: Desk) -> tuple[str, Person | None]:
    """The token in the browser, empty where there is none, and the person who holds it."""
    token = request.cookies.get(desk.cookie, "")[:100]
    return token, await run_in_threadpool(desk.votes.person, desk.study, token) if token else None


def _with_token(answer: Response, desk: Desk, token: str) -> Response:
    answer.set_cookie(desk.cookie, token, max_age=30 * 86_400, httponly=True, samesite="strict")
    return answer


def _csrf(desk: Desk, token: str) -> str:
    return desk.mac("csrf", token)


def _check_csrf(desk: Desk, token: str, given: str) -> None:
    if not token or not hmac.compare_digest(_csrf(desk, token).encode(), given.encode()):
        raise HTTPException(403, "This page is no longer valid here: load it again.")


def _nobody() -> Response:
    return JSONResponse({"problem": "Nobody has begun in this browser."}, 401)


async def _json(request: Request) -> Mapping[str, Any]:
    """The body as a JSON object. Raises HTTPException."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "JSON is expected.")
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError, ClientDisconnect):
        raise HTTPException(400, "This is no JSON.") from None
    if not isinstance(found, dict):
        raise HTTPException(400, "A JSON object is expected.")
    return found


def _vote(asked: Mapping[str, Any]) -> Vote:
    trial, attempt, ms = _numbers(asked, "trial", "attempt", "ms")
    shown = None if asked.get("shown_ms") is None else _numbers(asked, "shown_ms")[0]
    if not isinstance(asked.get("answer"), str):
        raise HTTPException(400, "answer is not a word.")
    return Vote(trial, attempt, asked["answer"], ms, shown)


def _numbers(asked: Mapping[str, Any], *names: str) -> list[int]:
    values = [asked.get(name) for name in names]
    for name, value in zip(names, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            raise HTTPException(400, f"{name} is no number from 0.")
    return [value for value in values if isinstance(value, int)]


def _minutes(study: Study) -> int:
    """How long it takes, about: 3 s an image, 4 s a pair."""
    return max(1, round((study.trials + study.repeats) * (4 if study.mode == "which-is-better" else 3) / 60))


async def _file(content: bytes, kind: str, request: Request) -> Response:
    return Response(content, media_type=kind)

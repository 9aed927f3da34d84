"""Who is let in, and what every answer forbids the browser."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse

from kubectl_inferencemodel.console.entry import COOKIE, Pass
from kubectl_inferencemodel.console.guard import Guard
from tests.unit.plugin.console.asgi import Answer, ask

PASS = Pass(4242)
APP = Guard(PlainTextResponse("inside"), PASS)
COOKIES = PASS.cookie.partition(";")[0]
READ = {"host": "127.0.0.1:4242", "cookie": COOKIES}
WRITE = {**READ, "origin": "http://127.0.0.1:4242", "x-console-word": PASS.word}


def read(**changed: str) -> Answer:
    headers = {**READ, **{key.replace("_", "-"): value for key, value in changed.items()}}
    return ask(APP, f"{PASS.base}/", headers={k: v for k, v in headers.items() if v})


def write(**changed: str) -> Answer:
    headers = {**WRITE, **{key.replace("_", "-"): value for key, value in changed.items()}}
    return ask(APP, f"{PASS.base}/", method="POST", headers={k: v for k, v in headers.items() if v})


def test_who_has_followed_the_link_may_read() -> None:
    assert read().text == "inside"
    assert read(sec_fetch_site="same-origin").text == "inside"
    assert read(sec_fetch_site="none").text == "inside"


def test_the_link_is_exchanged_for_a_cookie_and_leaves_the_address() -> None:
    answer = ask(APP, f"{PASS.base}/?token={PASS.token}", headers={"host": "127.0.0.1:4242"})
    assert (answer.status, answer.headers["location"]) == (303, f"{PASS.base}/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=Strict", f"Path={PASS.base}"} <= set(cookie.split("; "))
    assert PASS.token not in cookie


def test_another_token_opens_nothing() -> None:
    for token in ("", "wrong", PASS.token[:-1], PASS.word, "%C3%A9"):
        answer = ask(APP, f"{PASS.base}/?token={token}", headers=READ)
        assert answer.status == 403
        assert "set-cookie" not in answer.headers


def test_the_token_alone_changes_nothing() -> None:
    answer = ask(APP, f"{PASS.base}/?token={PASS.token}", method="POST", headers=WRITE)
    assert answer.status == 403


@pytest.mark.parametrize(
    "host", ["", "localhost:4242", "127.0.0.1", "127.0.0.1:4243", "evil.example:4242"]
)
def test_another_host_is_refused(host: str) -> None:
    assert read(host=host).status == 421
    assert write(host=host).status == 421


@pytest.mark.parametrize(
    "origin", ["null", "http://127.0.0.1:4243", "https://127.0.0.1:4242", "http://evil.example"]
)
def test_another_origin_is_refused(origin: str) -> None:
    assert read(origin=origin).status == 403
    assert write(origin=origin).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_page_makes_the_browser_ask_is_refused(site: str) -> None:
    assert read(sec_fetch_site=site).status == 403


@pytest.mark.parametrize("cookie", ["", f"{COOKIE}=", f"{COOKIE}=wrong", "other=1"])
def test_without_the_cookie_nothing_is_told(cookie: str) -> None:
    answer = read(cookie=cookie)
    assert answer.status == 403
    assert "inside" not in answer.text
    assert write(cookie=cookie).status == 403


def test_a_change_takes_the_word_of_the_pages_and_their_origin() -> None:
    assert write().text == "inside"
    assert write(x_console_word="").status == 403
    assert write(x_console_word="wrong").status == 403
    assert write(origin="").status == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(method: str) -> None:
    assert ask(APP, f"{PASS.base}/", method=method, headers=WRITE).status == 403


@pytest.mark.parametrize("headers", [{}, {"cookie": ""}, {"host": "evil.example"}])
def test_every_answer_forbids_what_the_console_never_needs(headers: dict[str, str]) -> None:
    answer = read(**headers)
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_two_consoles_have_nothing_in_common() -> None:
    other = Pass(4242)
    assert not other.knows(COOKIES)
    assert not other.opens(PASS.token)
    assert other.base != PASS.base

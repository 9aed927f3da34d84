"""The pages, on an API server's double."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any

import jinja2
import pytest

from kubectl_inferencemodel.cluster import Cluster
from kubectl_inferencemodel.console import pages
from kubectl_inferencemodel.console.app import Console
from kubectl_inferencemodel.console.entry import Pass
from kubectl_inferencemodel.console.feed import Feed
from tests.unit.plugin.api import ApiServer, resource
from tests.unit.plugin.console.asgi import Answer, ask
from tests.unit.plugin.views import rollout

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = "<img src=x onerror=alert(1)>'\"&"


class Browser:
    """Whoever has followed the link."""

    def __init__(self) -> None:
        cluster = Cluster(None, None, None)
        self.feed = Feed(cluster, ["vision"])
        self.feed.start()
        self.passed = Pass(4242)
        self.app = Console(cluster, self.feed, self.passed).app()
        self._headers = {
            "host": self.passed.host,
            "cookie": self.passed.cookie.partition(";")[0],
            "accept": "text/html",
        }

    def get(self, path: str) -> Answer:
        return ask(self.app, f"{self.passed.base}{path}", headers=self._headers)

    def post(self, path: str, content: Any) -> Answer:
        headers = {
            **self._headers,
            "origin": f"http://{self.passed.host}",
            "x-console-word": self.passed.word,
        }
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        url = f"{self.passed.base}{path}"
        return ask(self.app, url, method="POST", headers=headers, body=body)


@pytest.fixture
def browser(api: ApiServer) -> Iterator[Browser]:
    found = Browser()
    yield found
    found.feed.end()


def settled(name: str) -> Any:
    of = {"versions": [{"version": 2, "state": "Available", "replicas": 3}]}
    model = {"activeVersion": 2, "targetVersion": 2, "transitionStatus": "UpToDate", **of}
    return resource(name, model=model)


def elements(page: str) -> int:
    return len(re.findall("<[a-z]", page))


def paused(api: ApiServer, **more: Any) -> None:
    of = {"activeVersion": 2, "targetVersion": 3, "rollout": {**rollout("Paused"), **more}}
    api.objects[:] = [resource(model=of)]


def test_the_fleet_shows_every_model(browser: Browser) -> None:
    page = browser.get("/")
    assert page.status == 200
    assert f'href="{browser.passed.base}/models/vision/imagenet"' in page.text


def test_templates_are_read_while_the_list_comes(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    get_source, wait = jinja2.FileSystemLoader.get_source, browser.feed.wait

    def read(*arguments: Any) -> Any:
        done.append("a template")
        return get_source(*arguments)

    def waited(seconds: float) -> bool:
        done.append("the list")
        return wait(seconds)

    monkeypatch.setattr(jinja2.FileSystemLoader, "get_source", read)
    monkeypatch.setattr(browser.feed, "wait", waited)
    pages._templates.cache_clear()
    assert browser.get("/").status == 200
    assert len(done) > 1
    assert done[-1] == "the list"


def test_a_model_more_is_few_elements_more_and_no_drawing(api: ApiServer) -> None:
    # A browser's time until it has painted a large fleet goes with these.
    def page(models: int) -> str:
        api.objects[:] = [settled(f"model-{number:03}") for number in range(models)]
        found = Browser()
        text = found.get("/").text
        found.feed.end()
        return text

    few, many = page(100), page(200)
    assert (many.count("</tr>") - few.count("</tr>")) == 100
    assert elements(many) - elements(few) <= 13 * 100
    assert many.count("<svg") == few.count("<svg")
    assert len(many) - len(few) <= 600 * 100


def test_a_models_page_shows_its_rollout_and_what_can_be_done(
    api: ApiServer, browser: Browser
) -> None:
    paused(api)
    page = browser.get("/models/vision/imagenet").text
    assert "Version 3" in page
    assert 'data-ask="promote" data-version="3"' in page


def test_a_model_that_is_not_there_is_told_so(browser: Browser) -> None:
    page = browser.get("/models/vision/other")
    assert page.status == 404
    assert "other not found" in page.text


@pytest.mark.parametrize("name", ["UPPER", "a b", "a,b", "..", "a%2Fb"])
def test_what_can_be_no_name_is_asked_of_nobody(
    api: ApiServer, browser: Browser, name: str
) -> None:
    asked = len([path for path in api.requests if "/pods" in path])
    assert browser.get(f"/models/vision/{name}").status in (400, 404)
    assert len([path for path in api.requests if "/pods" in path]) == asked


def test_what_a_cluster_says_is_text_on_every_page(api: ApiServer, browser: Browser) -> None:
    paused(api, message=HOSTILE, phase=HOSTILE)
    found = api.objects[0]
    found["spec"]["model"]["storageUri"] = HOSTILE
    found["status"]["url"] = HOSTILE
    for condition in found["status"]["conditions"]:
        condition.update(message=HOSTILE, reason=HOSTILE, status="True")
    found["status"]["model"].update(
        versions=[{"version": 3, "state": HOSTILE, "replicas": 1}],
        quarantined=[{"version": 1, "reason": HOSTILE, "message": HOSTILE}],
    )
    feed = Browser()
    for path in ("/", "/models/vision/imagenet", "/models/vision/imagenet/try"):
        page = feed.get(path)
        assert "<img" not in page.text
        assert "onerror=alert(1)" not in html.unescape(page.text) or "&lt;img" in page.text
    feed.feed.end()
    manifest = browser.get("/models/vision/imagenet/manifest").text
    assert "<img" not in manifest
    assert "&lt;img" in manifest


def test_no_page_has_a_script_or_style_of_its_own(api: ApiServer, browser: Browser) -> None:
    paused(api)
    for path in ("/", "/models/vision/imagenet", "/models/vision/imagenet/compare"):
        page = browser.get(path).text
        assert "<style" not in page
        assert " style=" not in page
        assert page.count("<script") == page.count("<script src=") == 1
        assert "http://" not in page.replace(f"http://{browser.passed.host}", "").replace(
            html.escape(Cluster(None, None, None).server), ""
        )


def test_an_action_is_asked_twice_and_then_written(api: ApiServer, browser: Browser) -> None:
    paused(api)

    def act(found: dict[str, Any]) -> None:
        found["metadata"]["annotations"] = {}
        found["status"]["model"]["rollout"] = rollout("Progressing", step=2)

    api.after_patch = act
    at = "/models/vision/imagenet"
    asked = browser.post(f"{at}/ask", {"key": "promote", "version": 3})
    assert asked.status == 200
    command = "kubectl inferencemodel promote imagenet --namespace=vision --version=3"
    # Each word stands in an element of its own, so that lines end between words.
    assert command in re.sub("</?span>", "", asked.text)
    assert api.patches == []
    word = asked.text.split('data-do="')[1].split('"')[0]
    done = browser.post(f"{at}/do", {"word": word})
    assert done.status == 200
    assert "step 2 of 2" in done.text
    assert api.patches[0]["metadata"]["annotations"] == {"inferencemodel.dev/promote": "3"}
    again = browser.post(f"{at}/do", {"word": word})
    assert again.status == 409
    assert len(api.patches) == 1


def test_an_action_that_can_not_be_done_any_more_is_refused(
    api: ApiServer, browser: Browser
) -> None:
    paused(api)
    at = "/models/vision/imagenet"
    asked = browser.post(f"{at}/ask", {"key": "abort", "version": 3})
    word = asked.text.split('data-do="')[1].split('"')[0]
    api.objects[:] = [resource()]
    done = browser.post(f"{at}/do", {"word": word})
    assert done.status == 409
    assert "nothing of imagenet is being rolled out" in done.text
    assert api.patches == []


def test_a_model_that_was_created_anew_is_not_acted_on(api: ApiServer, browser: Browser) -> None:
    paused(api)
    at = "/models/vision/imagenet"
    asked = browser.post(f"{at}/ask", {"key": "promote", "version": 3})
    word = asked.text.split('data-do="')[1].split('"')[0]
    api.objects[0]["metadata"]["uid"] = "u-2"
    done = browser.post(f"{at}/do", {"word": word})
    assert (done.status, api.patches) == (409, [])


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff", b"[" * 100_000])
def test_what_is_no_question_is_refused(browser: Browser, body: bytes) -> None:
    assert browser.post("/models/vision/imagenet/ask", body).status == 400


@pytest.mark.parametrize(
    "query", ["pod=..&container=poller", "pod=a&container=sh", "pod=a%2Fb&container=poller", ""]
)
def test_a_log_is_read_of_the_two_containers_alone(browser: Browser, query: str) -> None:
    assert browser.get(f"/models/vision/imagenet/log?{query}").status == 400


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("console.css", "text/css; charset=utf-8"),
        ("console.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
def test_the_style_the_script_and_the_icon_are_the_consoles_own(
    browser: Browser, name: str, kind: str
) -> None:
    found = browser.get(f"/static/{name}")
    assert (found.status, found.headers["content-type"]) == (200, kind)
    assert found.body == (pages.STATIC / name).read_bytes()


@pytest.mark.parametrize("path", ["../app.py", "app.py", "", "%2e%2e%2fapp.py"])
def test_no_other_file_is_shown(browser: Browser, path: str) -> None:
    assert browser.get(f"/static/{path}").status == 404

"""The console in a real browser, on a real API server; pods and model servers are stand-ins."""

from __future__ import annotations

import json
import shlex
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from model_poller.model_server import records
from tests.support import shown
from tests.support.browser import faults
from tests.support.http_servers import serving
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, FilePayload, Page

    from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.api

IMAGENET = "/models/vision/imagenet"
PAGES = ("/", IMAGENET, f"{IMAGENET}/try", f"{IMAGENET}/compare", "/models/vision/nobody")
# The smallest picture there is: one grey pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c63680000008200817799f3c90000000049454e44ae426082"
)
PHOTO: FilePayload = {"name": "cat.png", "mimeType": "image/png", "buffer": PIXEL}


def names(page: Page) -> list[str]:
    return page.locator("#fleet tbody tr:visible .c-name a").all_inner_texts()


def noted(kubectl: Kubectl, name: str) -> dict[str, str]:
    found = kubectl.in_namespace("vision").get("inferencemodel", name)
    return dict(found["metadata"].get("annotations", {}))


# -- Fleet ----------------------------------------------------------------------------------------


def test_the_link_opens_the_fleet_and_leaves_no_token_in_the_address(page: Page, home: str) -> None:
    assert page.url == f"{home}/"
    assert names(page)[:2] == ["defects", "imagenet"]
    assert sorted(names(page)) == sorted(model.name for model in shown.FLEET)


def test_a_change_is_shown_in_its_place_and_said(page: Page, kubectl: Kubectl) -> None:
    expect(page.locator("#live")).to_have_text("Live")
    ocr = next(model for model in shown.FLEET if model.name == "ocr")
    broken = {**ocr.conditions, "Stalled": ("True", "LoadFailed", "<b>no such op</b>")}
    try:
        told = shown.Shown("vision", "ocr", version=21, conditions=broken).status()
        shown.tell(kubectl, "vision", "ocr", told)
        expect(page.locator("#r-vision\\/ocr .c-says")).to_have_text("<b>no such op</b>")
        assert set(names(page)[:2]) == {"defects", "ocr"}
        expect(page.locator("#said")).to_have_text("vision/ocr: Trouble")
        expect(page.locator('#counts [data-level="0"]')).to_contain_text("2 in trouble")
    finally:
        shown.tell(kubectl, "vision", "ocr", ocr.status())
    expect(page.locator('#counts [data-level="0"]')).to_contain_text("1 in trouble")
    assert names(page)[:2] == ["defects", "imagenet"]


def test_a_model_comes_and_goes_without_loading_the_page_again(
    page: Page, kubectl: Kubectl
) -> None:
    expect(page.locator("#live")).to_have_text("Live")
    shown.put(kubectl, shown.Shown("vision", "newcomer", version=1))
    expect(page.locator("#r-vision\\/newcomer")).to_contain_text("Serving")
    kubectl("delete", "inferencemodel", "newcomer", "-n", "vision")
    expect(page.locator("#r-vision\\/newcomer")).to_have_count(0)


def test_the_fleet_is_searched_and_gone_through_by_keys(page: Page, home: str) -> None:
    page.keyboard.press("/")
    page.keyboard.type("speech")
    expect(page.locator("#fleet tbody tr:visible")).to_have_count(3)
    page.keyboard.press("Escape")
    expect(page.locator("#fleet tbody tr:visible")).to_have_count(len(shown.FLEET))
    page.keyboard.press("e")
    assert names(page) == ["defects"]
    page.keyboard.press("e")
    for key in ("j", "j", "k", "j"):
        page.keyboard.press(key)
    expect(page.locator("#r-vision\\/imagenet a")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{home}{IMAGENET}")
    page.keyboard.press("t")
    page.wait_for_url(f"{home}{IMAGENET}/try")
    page.keyboard.press("f")
    page.wait_for_url(f"{home}/")


def test_a_filter_outlasts_a_look_at_a_model(page: Page, home: str) -> None:
    page.select_option("#namespace", "ranking")
    expect(page.locator("#fleet tbody tr:visible")).to_have_count(3)
    page.goto(f"{home}{IMAGENET}")
    page.goto(f"{home}/")
    expect(page.locator("#fleet tbody tr:visible")).to_have_count(3)


# -- Model ----------------------------------------------------------------------------------------


def test_a_models_page_shows_its_rollout_pods_and_events(page: Page, home: str) -> None:
    page.goto(f"{home}{IMAGENET}")
    expect(page.locator(".ladder li.now")).to_contain_text("2 of 2 answer with it")
    expect(page.locator("#rollout")).to_contain_text("3 of 3 records have the same answers")
    expect(page.locator("#timeline")).to_contain_text("ChecksumMismatch: saved_model.pb")
    pod = page.locator('[data-pod="imagenet-6f7d9c-2m4xk"] td')
    assert pod.all_inner_texts()[:5] == ["node-a", "yes", "3", "3", "1"]
    expect(page.locator("#events")).to_contain_text("promote or abort version 3")


def test_the_yaml_tells_what_was_defaulted_from_what_was_written(page: Page, home: str) -> None:
    page.goto(f"{home}{IMAGENET}")
    page.click("#yaml-show")
    expect(page.locator(".yaml .set", has_text="storageUri")).to_have_count(1)
    expect(page.locator(".yaml .default", has_text="suspend: false")).to_have_count(1)
    assert page.locator(".yaml .default", has_text="storageUri").count() == 0


def test_a_log_that_can_not_be_read_says_why(page: Page, home: str) -> None:
    page.goto(f"{home}{IMAGENET}")
    page.select_option("#log-of", index=1)
    expect(page.locator("#log")).to_contain_text("the log of model-server of pod")


def test_a_models_page_follows_its_model(page: Page, home: str, kubectl: Kubectl) -> None:
    page.goto(f"{home}/models/speech/captions")
    expect(page.locator("#live")).to_have_text("Live")
    model = next(model for model in shown.FLEET if model.name == "captions")
    told = {**model.status(), "model": {**model.status()["model"], "latestVersion": 6}}
    shown.tell(kubectl, "speech", "captions", told)
    expect(page.locator("#summary .figures div", has_text="Newest")).to_contain_text("6")
    shown.tell(kubectl, "speech", "captions", model.status())


def test_an_action_is_asked_twice_and_is_what_the_shown_command_does(
    page: Page, home: str, kubectl: Kubectl
) -> None:
    annotation = "inferencemodel.dev/promote"
    page.goto(f"{home}{IMAGENET}")
    page.click("[data-ask=promote]")
    expect(page.locator("#asked")).to_contain_text("goes on to the next step")
    command = page.locator("#asked pre").nth(1).inner_text()
    page.click("#asked [data-sure]")
    assert annotation not in noted(kubectl, "imagenet")
    page.click("#asked [data-do]")
    eventually(lambda: annotation in noted(kubectl, "imagenet"), what="the action")
    written = noted(kubectl, "imagenet")
    kubectl("annotate", "inferencemodel", "imagenet", "-n", "vision", f"{annotation}-")
    words = shlex.split(command)
    assert words[0] == "kubectl"
    kubectl(*words[1:])
    assert noted(kubectl, "imagenet") == written
    kubectl("annotate", "inferencemodel", "imagenet", "-n", "vision", f"{annotation}-")
    expect(page.locator("#asked .result")).to_contain_text("operator")


def test_who_says_no_at_the_second_question_has_done_nothing(
    page: Page, home: str, kubectl: Kubectl
) -> None:
    before = kubectl.in_namespace("vision").get("inferencemodel", "imagenet")["metadata"]
    page.goto(f"{home}{IMAGENET}")
    page.locator("[data-ask=abort]").focus()
    page.keyboard.press("Enter")
    page.locator("#asked [data-sure]").focus()
    page.keyboard.press("Enter")
    # The careful answer has the focus.
    page.keyboard.press("Enter")
    expect(page.locator("#asked")).to_be_hidden()
    after = kubectl.in_namespace("vision").get("inferencemodel", "imagenet")["metadata"]
    assert after["resourceVersion"] == before["resourceVersion"]


def test_a_version_is_pinned_and_unpinned(page: Page, home: str, kubectl: Kubectl) -> None:
    def is_pinned(version: int | None) -> bool:
        found = kubectl.in_namespace("vision").get("inferencemodel", "segmentation")
        return bool(found["spec"]["model"].get("version") == version)

    model = next(model for model in shown.FLEET if model.name == "segmentation")
    page.goto(f"{home}/models/vision/segmentation")
    steps: tuple[tuple[str, int | None], ...] = (("[data-ask=unpin]", None), ("[data-ask=pin]", 3))
    for press, expected in steps:
        page.click(press)
        page.click("#asked [data-sure]")
        page.click("#asked [data-do]")
        eventually(partial(is_pinned, expected), what=f"pin {expected}")
        # Nothing here answers as an operator, so what becomes of it is not waited for.
        page.reload()
    shown.tell(kubectl, "vision", "segmentation", model.status())


# -- Try it, Compare ------------------------------------------------------------------------------


def test_a_photo_is_labelled_by_two_versions_side_by_side(page: Page, home: str) -> None:
    page.goto(f"{home}{IMAGENET}/try")
    page.check('[name=version][value="3"]')
    page.set_input_files("[type=file]", files=[PHOTO])
    expect(page.locator(".side").nth(1)).to_contain_text("57.3 %")
    expect(page.locator(".side").nth(0)).to_contain_text("Version 3")
    expect(page.locator(".side").nth(0)).to_contain_text("81.2 %")
    page.click(".snippets summary")
    expect(page.locator(".snippets")).to_contain_text("base64 < photo.jpg")
    page.locator(".snippets [data-copy]").first.click()
    assert "curl" in page.evaluate("navigator.clipboard.readText()")


def test_several_photos_are_dropped_at_once(page: Page, home: str) -> None:
    page.goto(f"{home}{IMAGENET}/try")
    page.evaluate(
        """async (bytes) => {
            const carried = new DataTransfer();
            for (const name of ["a.png", "b.png"])
                carried.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            document.querySelector(".drop").dispatchEvent(
                new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
        }""",
        list(PIXEL),
    )
    expect(page.locator(".labels")).to_have_count(2)
    assert page.locator(".asked-photo h2").all_inner_texts() == ["b.png", "a.png"]


def test_a_photo_is_taken_with_the_camera(page: Page, home: str) -> None:
    page.goto(f"{home}{IMAGENET}/try")
    page.click("[data-camera]")
    # The console's own rules forbid the browser's driver to wait by a script.
    seen = "document.querySelector('video').videoWidth > 0"
    eventually(lambda: page.evaluate(seen), what="the camera's picture")
    page.click("[data-shoot]")
    expect(page.locator(".labels")).to_have_count(1)


def test_a_form_is_made_of_the_signature(page: Page, home: str) -> None:
    page.goto(f"{home}{IMAGENET}/try")
    page.select_option("#signature", "thumbnail")
    form = page.locator('form[data-signature="thumbnail"]')
    form.locator("[name=limit]").fill("3")
    form.locator("[name=threshold]").fill("0.5")
    form.locator("[name=pixels]").fill("[[1")
    form.locator("button").click()
    expect(page.locator("#answers .note").first).to_contain_text("input pixels takes float[2, 2]")
    form.locator("[name=pixels]").fill("[[1, 2], [3, 4]]")
    form.locator("button").click()
    expect(page.locator("#answers section").first).to_contain_text("Egyptian cat")


def test_a_question_becomes_a_golden_record(page: Page, home: str) -> None:
    page.goto(f"{home}{IMAGENET}/try")
    page.set_input_files("[type=file]", files=[PHOTO])
    with page.expect_download() as got:
        page.click("[data-golden]")
    assert got.value.suggested_filename == "imagenet-v2.golden"
    path: Path = got.value.path()
    records.check(path)
    (place,) = records.records(path.read_bytes())
    assert PIXEL in path.read_bytes()[place.start : place.stop]


def test_two_versions_are_compared(page: Page, home: str) -> None:
    page.goto(f"{home}{IMAGENET}/compare")
    expect(page.locator(".verdict")).to_contain_text("clients of version 2 can go on")
    expect(page.locator(".differs")).to_contain_text("float32[-1, 1280]")
    expect(page.locator("section", has_text="Golden answers").last).to_contain_text("Passed")
    page.select_option("#before", "3")
    page.select_option("#after", "2")
    page.click(".choose button")
    expect(page).to_have_url(f"{home}{IMAGENET}/compare?before=3&after=2")


# -- For everybody, and for nobody else -----------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(
    browser: Browser, link: str, home: str, scheme: Any, width: int
) -> None:
    context = browser.new_context(
        color_scheme=scheme,
        viewport={"width": width, "height": 800},
        reduced_motion="reduce",
        bypass_csp=True,  # what axe puts into a page is none of the console's
    )
    page = context.new_page()
    page.goto(link)
    for path in PAGES:
        page.goto(f"{home}{path}")
        if path == IMAGENET:
            page.click("#yaml-show")
            page.wait_for_selector(".yaml")
            assert faults(page) == []
            page.click("[data-ask=abort]")
            page.wait_for_selector("#asked[open]")
        if path.endswith("/try"):
            page.set_input_files("[type=file]", files=[PHOTO])
            page.wait_for_selector(".labels")
            page.click(".snippets summary")
        assert faults(page) == [], path
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{path} is wider than the window"
    context.close()


def test_nothing_is_loaded_from_elsewhere(page: Page, home: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in PAGES:
        page.goto(f"{home}{path}")
        page.wait_for_load_state("load")
    assert len(asked) > len(PAGES)
    assert [url for url in asked if not url.startswith((f"{home}/", "data:", "blob:"))] == []


@contextmanager
def stranger(content: str) -> Iterator[tuple[str, list[Any]]]:
    """A web page of somebody else on this machine: its URL, and the headers that it gets."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with serving(Handler) as url:
        yield f"{url}/", got


def test_a_page_of_somebody_else_gets_nothing_and_does_nothing(
    page: Page, home: str, kubectl: Kubectl
) -> None:
    before = kubectl.in_namespace("vision").get("inferencemodel", "imagenet")["metadata"]
    with stranger("<title>evil</title><body></body>") as (url, got):
        page.goto(url)
        script = """async ([path, method]) => {
            const body = method === "POST" ? '{"key": "abort", "version": 3}' : undefined;
            try {
                const answer = await fetch(path, { method, body, credentials: "include" });
                return await answer.text();
            } catch (error) { return "refused"; }
        }"""
        for path, method in ((f"{home}/", "GET"), (f"{home}{IMAGENET}/ask", "POST")):
            assert page.evaluate(script, [path, method]) == "refused"
        # A frame of it stays empty, and a form of it is turned away.
        page.set_content(f'<iframe src="{home}/"></iframe>')
        page.wait_for_timeout(300)
        assert all("imagenet" not in frame.content() for frame in page.frames)
        page.set_content(f'<form method="post" action="{home}{IMAGENET}/ask"><button>x</button>')
        page.click("button")
        expect(page.locator("body")).to_contain_text("requests of other pages are refused")
        assert all("inferencemodel-console" not in json.dumps(headers) for headers in got)
    after = kubectl.in_namespace("vision").get("inferencemodel", "imagenet")["metadata"]
    assert after["resourceVersion"] == before["resourceVersion"]


def test_without_the_link_nothing_is_shown(browser: Browser, link: str, home: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    answer = page.goto(f"{home}/")
    assert answer is not None
    assert answer.status == 403
    assert "imagenet" not in page.content()
    context.close()

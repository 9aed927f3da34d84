"""The command line as a process: whatever goes wrong is one line, and has its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kubectl_inferencemodel import asking, cli, cluster
from kubectl_inferencemodel.arguments import command_first
from release import version
from tests.support.waiting import eventually
from tests.unit.plugin.api import ApiServer, kubeconfig, resource

if TYPE_CHECKING:
    from collections.abc import Callable

Object = dict[str, Any]
ROOT = Path(__file__).parents[3]
PYTHONPATH = f"{ROOT}/plugin:{ROOT}/operator:{ROOT}/poller"


def one_line(printed: str) -> str:
    assert printed.endswith("\n")
    assert printed.count("\n") == 1, printed
    assert "Traceback" not in printed
    return printed


ORDERS = [
    ["-n", "other", "list", "-o", "json"],
    ["-nother", "-ojson", "list"],
    ["--namespace=other", "--output=json", "list"],
    ["--namespace", "other", "list", "--output", "json"],
    ["-n=other", "list", "-o=json"],
    ["list", "-n", "other", "-o", "json"],
    ["--context", "there", "list", "-ojson"],
    ["list", "--context=there", "-ojson"],
    ["-n", "wrong", "list", "-nother", "-ojson"],
]


@pytest.mark.parametrize("arguments", ORDERS, ids=" ".join)
def test_options_work_before_and_after_the_command(
    api: ApiServer, shell: Any, arguments: list[str]
) -> None:
    code, out, err = shell(*arguments)
    assert (code, err) == (0, "")
    assert [model["name"] for model in json.loads(out)] == ["imagenet"]
    assert "/namespaces/other/inferencemodels" in api.requests[-1]


@pytest.mark.parametrize("arguments", [["-l", "team=vision", "list"], ["list", "-lteam=vision"]])
def test_a_selector_is_handed_on_to_the_api_server(
    api: ApiServer, shell: Any, arguments: list[str]
) -> None:
    assert shell(*arguments)[0] == 0
    assert "labelSelector=team%3Dvision" in api.requests[-1]


def test_the_kubeconfig_may_be_named_before_the_command(
    api: ApiServer, shell: Any, tmp_path: Path
) -> None:
    assert shell("--kubeconfig", str(tmp_path / "kubeconfig"), "why", "imagenet")[0] == 0
    assert shell("why", "imagenet", f"--kubeconfig={tmp_path / 'none'}")[0] == 1


def test_an_option_in_front_is_not_taken_for_the_command() -> None:
    assert command_first(["-n", "list", "why", "x"]) == ["why", "-n", "list", "x"]
    assert command_first(["-A", "list"]) == ["list", "-A"]
    assert command_first(["-n", "vision", "-h"]) == ["--help"]
    assert command_first(["predict", "x", "--json", "-"]) == ["predict", "x", "--json", "-"]


def test_a_list_is_read_page_by_page(api: ApiServer, shell: Any) -> None:
    def pages(path: str) -> tuple[int, bytes]:
        first = "continue=" not in path
        more = {"metadata": {"continue": "next&page"}} if first else {}
        name = "one" if first else "two"
        return 200, json.dumps({**more, "items": [resource(name)]}).encode()

    api.answer = pages
    code, out, _ = shell("list", "-ojson")
    assert code == 0
    assert [model["name"] for model in json.loads(out)] == ["one", "two"]
    assert "continue=next%26page" in api.requests[-1]


WRONG_USAGE = [
    ["frobnicate"],
    ["list", "--frobnicate"],
    ["--frobnicate", "list"],
    ["why"],
    ["why", "a", "b"],
    ["why", "../secrets"],
    ["why", "Imagenet"],
    ["why", "image\nnet"],
    ["why", "\udcff"],
    ["-n", "../x", "list"],
    ["-n"],
    ["list", "-o", "yaml"],
    ["wait", "a", "--version=x"],
    ["wait", "a", "--version=-1"],
    ["wait", "a", f"--version={2**63}"],
    ["wait", "a", "--timeout=soon"],
    ["wait", "a", f"--timeout={'9' * 5000}"],
    ["predict", "a"],
    ["predict", "a", "--image=a", "--json=b"],
]


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=lambda a: ascii(" ".join(a))[:40])
def test_wrong_usage_is_one_line_and_2(api: ApiServer, shell: Any, arguments: list[str]) -> None:
    code, out, err = shell(*arguments)
    assert (code, out) == (2, "")
    assert one_line(err).startswith("error: ")
    assert not api.requests


def test_help_is_printed_without_a_command_and_anywhere(shell: Any) -> None:
    for arguments in ([], ["-h"], ["--help"], ["-n", "x", "-h"], ["wait", "-h"]):
        code, out, err = shell(*arguments)
        assert (code, err) == (0, "")
        assert "Usage" in out


def program(command: str) -> Object:
    return {"apiVersion": "client.authentication.k8s.io/v1", "command": command, "args": []}


def broken(change: Callable[[Object], object]) -> bytes:
    made = kubeconfig("https://127.0.0.1:1")
    change(made)
    return yaml.safe_dump(made).encode()


KUBECONFIGS: dict[str, bytes] = {
    "empty": b"",
    "comments": b"# nothing\n",
    "binary": bytes(range(256)),
    "text": b"no kubeconfig",
    "a number": b"1",
    "a list": b"[1, 2]",
    "cut": yaml.safe_dump(kubeconfig("https://127.0.0.1:1")).encode()[:150] + b"[",
    "JSON that is cut": json.dumps(kubeconfig("https://127.0.0.1:1")).encode()[:200],
    "a tag": b"!!python/object/apply:os.system [true]",
    "deep": b"[" * 5000,
    "clusters as text": broken(lambda c: c.update(clusters="here")),
    "clusters as a map": broken(lambda c: c.update(clusters={"here": {}})),
    "no clusters": broken(lambda c: c.pop("clusters")),
    "a cluster of nothing": broken(lambda c: c["clusters"][0].update(cluster=None)),
    "no server": broken(lambda c: c["clusters"][0].update(cluster={})),
    "a number as server": broken(lambda c: c["clusters"][0]["cluster"].update(server=6443)),
    "a server without a scheme": broken(lambda c: c["clusters"][0]["cluster"].update(server="a")),
    "a server without a host": broken(
        lambda c: c["clusters"][0]["cluster"].update(server="https://")
    ),
    "a server's port": broken(
        lambda c: c["clusters"][0]["cluster"].update(server="https://a:99999")
    ),
    "another server's bracket": broken(
        lambda c: c["clusters"][0]["cluster"].update(server="https://[a")
    ),
    "no certificate": broken(
        lambda c: c["clusters"][0]["cluster"].update({"certificate-authority-data": "%%%"})
    ),
    "a certificate that is none": broken(
        lambda c: c["clusters"][0]["cluster"].update({"certificate-authority-data": "aGVsbG8="})
    ),
    "a certificate's file": broken(
        lambda c: c["clusters"][0]["cluster"].update({"certificate-authority": "/nowhere"})
    ),
    "contexts as text": broken(lambda c: c.update(contexts="here")),
    "a context of nothing": broken(lambda c: c["contexts"][0].update(context=None)),
    "a context of nowhere": broken(lambda c: c.update({"current-context": "nowhere"})),
    "no context": broken(lambda c: c.pop("current-context")),
    "a list as context": broken(lambda c: c.update({"current-context": ["here"]})),
    "a user as text": broken(lambda c: c["users"][0].update(user="me")),
    "no user": broken(lambda c: c.update(users=[])),
    "a token of two lines": broken(lambda c: c["users"][0].update(user={"token": "a\nb"})),
    "a token's file": broken(lambda c: c["users"][0].update(user={"tokenFile": "/nowhere"})),
    "a program that is missing": broken(
        lambda c: c["users"][0].update(user={"exec": program("no-such-program")})
    ),
    "a program that fails": broken(lambda c: c["users"][0].update(user={"exec": program("false")})),
    "a program that says nothing": broken(
        lambda c: c["users"][0].update(user={"exec": program("true")})
    ),
    "a program of nothing": broken(lambda c: c["users"][0].update(user={"exec": None})),
    "a provider of old": broken(
        lambda c: c["users"][0].update(user={"auth-provider": {"name": "gcp"}})
    ),
}


@pytest.mark.parametrize("case", KUBECONFIGS)
def test_a_kubeconfig_that_is_none_is_one_line_and_1(shell: Any, tmp_path: Path, case: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_bytes(KUBECONFIGS[case])
    code, out, err = shell("list", f"--kubeconfig={file}")
    assert (code, out) == (1, "")
    assert one_line(err).startswith("error: ")
    assert "fault of this program" not in err


def test_a_kubeconfig_that_can_not_be_read_is_one_line(shell: Any, tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "none", tmp_path / "\udcff", Path("/dev/null/x")):
        code, _, err = shell("list", f"--kubeconfig={file}")
        assert code == 1
        assert "no cluster: the kubeconfig can't be used" in one_line(err)


ANSWERS: dict[str, tuple[int, bytes, str]] = {
    "no JSON": (200, b"<html>", "is no JSON"),
    "nothing": (200, b"", "is no JSON"),
    "a number": (200, b"1", "not understood"),
    "deep": (200, b"[" * 200_000, "is no JSON"),
    "no UTF-8": (200, b'{"metadata": {"name": "\xff"}}', "is no JSON"),
    "no metadata": (200, b"{}", "not understood"),
    "expired credentials": (401, b'{"message": "Unauthorized"}', "log in again"),
    "forbidden": (403, b'{"message": "is\\nforbidden"}', "answers 403: is forbidden"),
    "no such kind": (404, b"404 page not found", "no CRD of InferenceModels"),
    "no such object": (404, b'{"message": "not found"}', "not found"),
    "a redirect": (302, b"", "answers 302"),
    "a proxy's page": (502, b"<html>\n<body>bad gateway", "answers 502"),
    "a bad message": (500, b'{"message": ["a"]}', "answers 500"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_odd_answer_is_one_line_and_1(api: ApiServer, shell: Any, case: str) -> None:
    status, body, words = ANSWERS[case]
    api.answer = lambda path: (status, body)
    for command in ("why", "versions"):
        code, out, err = shell(command, "imagenet")
        assert (code, out) == (1, "")
        assert words in one_line(err)


def test_an_object_that_is_nested_too_deeply_hides_no_other_one(api: ApiServer, shell: Any) -> None:
    plain = shell("list")
    assert "imagenet" in plain[1]
    deep = b'{"f:a":' * 5000 + b"{}" + b"}" * 5000

    def answer(path: str) -> tuple[int, bytes]:
        status, body = api.models(path)
        assert b'"items":' in body.replace(b" ", b"")
        return status, b'{"deep":%s,%s' % (deep, body.lstrip()[1:])

    api.answer = answer
    assert shell("list") == plain


def test_credentials_that_expire_meanwhile_are_read_anew(
    api: ApiServer, shell: Any, tmp_path: Path
) -> None:
    file, token = tmp_path / "kubeconfig", tmp_path / "token"
    server = yaml.safe_load(file.read_text())["clusters"][0]["cluster"]["server"]
    token.write_text("old")
    file.write_text(yaml.safe_dump(kubeconfig(server, tokenFile=str(token))))

    def answer(path: str) -> tuple[int, bytes]:
        if api.authorizations[-1] == "Bearer old":
            token.write_text("new")
            return 401, b'{"message": "Unauthorized"}'
        return api.models(path)

    api.answer = answer
    assert shell("wait", "imagenet", "--timeout=10s")[0] == 0
    assert api.authorizations == ["Bearer old", "Bearer new"]


def test_an_api_server_that_is_not_there_is_one_line_and_1(shell: Any, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig("https://127.0.0.1:1")))
    code, _, err = shell("list", f"--kubeconfig={file}")
    assert code == 1
    assert "can't be asked" in one_line(err)
    assert "object at 0x" not in err


def test_a_huge_answer_is_not_read_to_its_end(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "MAX_BYTES", 1 << 20)
    api.answer = lambda path: (200, b" " * (8 << 20))
    for command in (["list"], ["why", "imagenet"]):
        code, _, err = shell(*command)
        assert code == 1
        assert "is longer than 1 MiB" in one_line(err)


ODD_STATUSES: list[Any] = [
    None,
    {},
    {"conditions": None, "model": None},
    {"conditions": {"Ready": True}, "model": []},
    {"observedGeneration": "1", "replicaSummary": 3},
    {"conditions": [None, {}, {"type": "Ready"}, {"type": 1, "status": "True"}]},
    {"model": {"activeVersion": "2", "versions": {}, "quarantined": None, "history": "x"}},
    {"model": {"versions": [{"version": 2}, {"state": "Available"}, {"version": "x"}]}},
    {"model": {"history": [{"version": 2, "startTime": "yesterday", "phase": "New"}]}},
    {"model": {"lastFailureInfo": {"reason": "LoadFailed"}, "waves": [1]}, "later": {"a": 1}},
    {"model": {"lastFailureInfo": {"version": 1, "time": 5, "message": None}}},
]


@pytest.mark.parametrize("status", ODD_STATUSES, ids=str)
def test_a_status_of_another_release_is_shown_as_far_as_it_is_understood(
    api: ApiServer, shell: Any, status: Any
) -> None:
    api.objects = [{**resource("odd"), "status": status}, resource("even")]
    code, out, err = shell("list", "-ojson")
    assert (code, err) == (0, "")
    odd, even = json.loads(out)
    assert (odd["name"], even["activeVersion"]) == ("odd", 2)
    for command in ("why", "versions"):
        assert shell(command, "odd")[0] == 0
    assert shell("wait", "odd", "--version=2", "--timeout=0")[0] == 3


def test_what_a_terminal_would_obey_is_not_printed(api: ApiServer, shell: Any) -> None:
    evil = "\x1b]0;title\x07 \x1b[2J\x9b31m"
    api.objects = [resource()]
    api.objects[0]["status"]["conditions"][0].update(status="False", message=evil, reason="\x1b[m")
    for command in (["why", "imagenet"], ["list"], ["wait", "imagenet", "--timeout=0"]):
        _, out, err = shell(*command)
        assert not {"\x1b", "\x07", "\x9b"} & {*out, *err}


def test_wait_follows_a_resource_that_is_deleted_and_created_again(
    api: ApiServer, shell: Any
) -> None:
    going = resource(uid="u-1")
    going["status"]["observedGeneration"] = 0
    new = resource(uid="u-2")
    looks = iter([[going], [], [], [new]])

    def answer(path: str) -> tuple[int, bytes]:
        api.objects = next(looks)
        return api.models(path)

    api.answer = answer
    code, out, err = shell("wait", "imagenet", "--version=2", "--timeout=60s")
    assert code == 0
    assert out == "version 2 answers on 3/3 replicas\n"
    assert "imagenet was deleted, and not created again yet" in err
    assert "imagenet was deleted and created again; the new one is waited for" in err


def test_wait_ends_with_3_for_a_resource_that_stays_deleted(api: ApiServer, shell: Any) -> None:
    going = resource()
    going["status"]["observedGeneration"] = 0
    looks = iter([[going]])

    def answer(path: str) -> tuple[int, bytes]:
        api.objects = next(looks, [])
        return api.models(path)

    api.answer = answer
    code, _, err = shell("wait", "imagenet", "--timeout=1s")
    assert code == 3
    assert "was deleted" in err.splitlines()[-1]
    assert shell("wait", "imagenet", "--timeout=1s")[0] == 1, "there was none from the beginning"


def metadata(path: str) -> tuple[int, bytes]:
    signature = {"serving_default": {"inputs": {"image": {"dtype": "DT_STRING"}}}}
    if path.endswith("/metadata"):
        return 200, json.dumps(
            {
                "model_spec": {"version": "2"},
                "metadata": {"signature_def": {"signature_def": signature}},
            }
        ).encode()
    return 400, b'{"error": "not a picture\\n at node Decode"}'


def test_a_file_that_is_no_picture_ends_with_the_model_servers_words(
    api: ApiServer, shell: Any, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"no picture")
    api.answer = lambda path: metadata(path) if ":http/proxy" in path else api.models(path)
    code, out, err = shell("predict", "imagenet", f"--image={photo}")
    assert (code, out) == (1, "")
    assert one_line(err) == "error: imagenet answers 400: not a picture at node Decode\n"


FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "a folder": lambda path: path.mkdir(),
    "endless": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("option", ["--image", "--json", "--labels"])
@pytest.mark.parametrize("case", FILES)
def test_a_file_that_can_not_be_sent_is_one_line(
    api: ApiServer,
    shell: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    option: str,
) -> None:
    monkeypatch.setattr(asking, "MAX_BYTES", 1 << 20)
    api.answer = lambda path: metadata(path) if ":http/proxy" in path else api.models(path)
    file = tmp_path / "file"
    FILES[case](file)
    request = tmp_path / "request"
    request.write_text("{}")
    more = [f"--json={request}"] if option == "--labels" else []
    code, out, err = shell("predict", "imagenet", f"{option}={file}", *more)
    assert code in (1, 2)
    assert out == ""
    one_line(err)


def test_labels_that_are_no_text_are_one_line(api: ApiServer, shell: Any, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.write_bytes(b"tabby\n\xff\n")
    code, _, err = shell("predict", "imagenet", f"--image={labels}", f"--labels={labels}")
    assert code == 1
    assert "is no text in UTF-8 (byte 6)" in one_line(err)


def start(*arguments: str | bytes, **options: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, **options.pop("env", {})}
    command = [sys.executable, "-m", "kubectl_inferencemodel", *arguments]
    return subprocess.Popen(command, env=environment, **options)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, err = process.communicate(timeout=60)
    return process.returncode, err.decode()


def test_a_reader_that_goes_away_ends_it_quietly_with_141(api: ApiServer) -> None:
    for arguments in (["list"], ["list", "-ojson"]):
        process = start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        assert finish(process) == (141, "")


def test_ctrl_c_is_one_line_and_130(api: ApiServer) -> None:
    api.objects[0]["status"]["observedGeneration"] = 0
    process = start("wait", "imagenet", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: len(api.requests) > 1, what="it looks")
    process.send_signal(signal.SIGINT)
    code, err = finish(process)
    assert code == 130
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err


def test_a_full_disk_is_one_line_and_1(api: ApiServer) -> None:
    with Path("/dev/full").open("wb") as full:
        code, err = finish(start("list", stdout=full, stderr=subprocess.PIPE))
    assert code == 1
    assert "can't be printed: No space left" in one_line(err)


def test_without_any_stream_the_exit_code_tells(api: ApiServer) -> None:
    script = 'exec "$@" <&- >&- 2>&-'
    for arguments, code in ((["list"], 0), (["why", "missing"], 1), (["frobnicate"], 2)):
        command = [sys.executable, "-m", "kubectl_inferencemodel", *arguments]
        done = subprocess.run(
            ["sh", "-c", script, "sh", *command],
            env={**os.environ, "PYTHONPATH": PYTHONPATH},
            check=False,
            timeout=60,
        )
        assert done.returncode == code


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_any_encoding_gets_what_it_can_show(api: ApiServer, encoding: str) -> None:
    api.objects[0]["status"]["conditions"][0].update(status="False", message="Größe █ 模型")
    process = start(
        *("why", "imagenet"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONIOENCODING": encoding},
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert b"Gr" in out


@pytest.mark.parametrize(
    "arguments",
    [
        [b"why", b"\xff"],
        [b"-n", b"\xff", b"list"],
        [b"predict", b"imagenet", b"--image=\xff"],
        [b"predict", b"imagenet", b"--image=/dev/null", b"--labels=\xff"],
        [b"list", b"--kubeconfig=\xff"],
        [b"list", b"--context=\xff"],
        [b"list", b"-l", b"\xff"],
        [b"predict", b"imagenet", b"--json=/etc/hostname", b"--signature=\xff"],
        [b"\xff"],
    ],
    ids=repr,
)
def test_an_argument_that_is_no_utf_8_is_one_line(api: ApiServer, arguments: list[bytes]) -> None:
    def answer(path: str) -> tuple[int, bytes]:
        return (400, b'{"message": "no"}') if "labelSelector" in path else api.models(path)

    api.answer = answer
    code, err = finish(start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    assert code in (1, 2)
    assert "fault of this program" not in one_line(err)


def test_a_fault_of_the_program_itself_is_one_line_with_the_way_to_its_traceback(
    api: ApiServer, shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_inferencemodel.display.models", lambda *_, **__: 1 / 0)
    code, _, err = shell("list")
    assert code == 1
    assert "ZeroDivisionError" in one_line(err)
    monkeypatch.setenv(cli.DEBUG, "1")
    assert "Traceback" in shell("list")[2]


def test_the_plugin_tells_its_version(shell: Any) -> None:
    assert shell("--version") == (0, f"{version.current()}\n", "")


def test_a_command_is_there_without_the_others() -> None:
    program = (
        "import sys; from kubectl_inferencemodel import cli; cli.run(['versions', '--help']);"
        " print([name for name in ('answers', 'delivery', 'shells', 'ui')"
        " if f'kubectl_inferencemodel.{name}' in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "kubectl inferencemodel versions" in done.stdout
    assert done.stdout.endswith("\n[]\n")


def test_a_word_that_is_no_command_has_what_may_have_been_meant(shell: Any) -> None:
    code, _, err = shell("verisons", "imagenet")
    assert code == 2
    assert "'versions'" in err


@pytest.mark.parametrize("option", ["-n=", "--namespace=", "--context=", "--kubeconfig="])
def test_an_option_with_nothing_is_as_if_it_were_left_out(
    api: ApiServer, shell: Any, option: str
) -> None:
    """A script's variable that nobody has set; so it is with kubectl."""
    words = ("-n", "") if option == "-n=" else (option,)
    assert shell("list", *words) == shell("list")
    assert api.requests[0] == api.requests[1]

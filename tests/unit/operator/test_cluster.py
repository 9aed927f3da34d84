"""Requests to the API server: credentials that change, and what each refusal means."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web

from inferencemodel_operator import access, cluster
from inferencemodel_operator.access import Access
from inferencemodel_operator.cluster import CONFIG_MAPS, DEPLOYMENTS, MODELS, SERVICES, Cluster
from inferencemodel_operator.errors import (
    ApiUnavailableError,
    ConflictError,
    ExpiredError,
    NotLeadingError,
    PermanentError,
    RefusedError,
    StatusRefusedError,
)
from inferencemodel_operator.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Server:
    """A stand-in for an API server: answers what it is told to, if it likes the token."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.meant: list[tuple[str, str]] = []
        """By which headers the last request was to be somebody else's."""
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        if self.token is not None and request.headers.get("Authorization") != self.token:
            return web.json_response({"message": "Unauthorized"}, status=401)
        self.meant = [
            (name, value)
            for name, value in request.headers.items()
            if name.startswith("Impersonate-")
        ]
        body = await request.text()
        query = dict(request.query)
        self.seen.append((request.method, request.path, query, json.loads(body or "null")))
        if self.lines:
            return web.Response(body=b"".join(json.dumps(x).encode() + b"\n" for x in self.lines))
        status, answer = self.answers.pop(0) if self.answers else (200, {})
        return web.json_response(answer, status=status, headers=self.headers)

    def refuse(self, status: int, message: str) -> None:
        self.answers.append((status, {"kind": "Status", "message": message}))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def kubeconfig(path: Path, url: str, user: dict[str, Any]) -> Path:
    file = path / "kubeconfig"
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return file


@asynccontextmanager
async def reached(file: Path) -> AsyncIterator[Cluster]:
    access = Access(file)
    async with (
        cluster.connect(access, watches=0) as pool,
        cluster.session(pool, Metrics(), access) as session,
    ):
        yield Cluster(access, session)


@pytest.fixture
async def api(server: Server, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with reached(kubeconfig(tmp_path, server.url, {"token": "t"})) as made:
        yield made


WANTED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"namespace": "vision", "name": "m"},
}


async def test_in_a_pod_the_service_account_is_used_and_its_token_read_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("first\n")
    monkeypatch.setattr(access, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    inside = Access()
    assert inside.in_cluster
    assert inside.server == "https://[fd00::1]:6443"

    inside.server = server.url
    async with cluster.connect(inside, watches=0) as pool, cluster.session(pool, inside) as session:
        api = Cluster(inside, session)
        server.token = "Bearer first"
        assert await api.get(SERVICES, "ns", "s") == {}

        (tmp_path / "token").write_text("second\n")
        monkeypatch.setattr("time.monotonic", lambda now=time.monotonic: now() + 61)
        server.token = "Bearer second"
        assert await api.get(SERVICES, "ns", "s") == {}

    (tmp_path / "token").unlink()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(PermanentError, match="name a kubeconfig file with --kubeconfig"):
        Access()


def test_the_packages_that_a_pod_needs_not_are_not_imported() -> None:
    program = (
        "import sys, inferencemodel_operator.main; "
        "print([name for name in ('kubernetes', 'pydantic', 'requests') if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout == "[]\n"


async def test_the_token_of_an_exec_plugin_is_asked_for_again_when_it_is_refused(
    server: Server, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    plugin = tmp_path / "plugin"
    plugin.write_text(
        "#!/bin/sh\n"
        'printf \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
        f'"status":{{"token":"%s"}}}}\' "$(cat {token})"\n'
    )
    plugin.chmod(0o700)
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(plugin),
            "interactiveMode": "Never",
        }
    }
    async with reached(kubeconfig(tmp_path, server.url, user)) as made:
        server.token = "Bearer old"
        assert await made.get(DEPLOYMENTS, "vision", "m") == {}

        server.token = "Bearer new"
        token.write_text("new")
        assert await made.get(DEPLOYMENTS, "vision", "m") == {}

        server.token = "Bearer newer"
        with pytest.raises(ApiUnavailableError, match="401 Unauthorized"):
            await made.get(DEPLOYMENTS, "vision", "m")


async def test_a_tokens_file_ends_with_a_line_break(server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    server.token = "Bearer secret"
    async with reached(kubeconfig(tmp_path, server.url, {"tokenFile": "token"})) as made:
        assert await made.get(DEPLOYMENTS, "vision", "m") == {}


async def test_who_is_somebody_else_by_the_file_is_it_for_the_api_server(
    server: Server, tmp_path: Path
) -> None:
    user = {"token": "t", "as": "alice", "as-groups": ["readers", "writers"]}
    async with reached(kubeconfig(tmp_path, server.url, user)) as made:
        assert await made.get(DEPLOYMENTS, "vision", "m") == {}
    assert server.meant == [
        ("Impersonate-User", "alice"),
        ("Impersonate-Group", "readers"),
        ("Impersonate-Group", "writers"),
    ]


def test_of_several_files_the_first_chooses_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with kubectl; Kubernetes' client goes to where the last one leads."""
    paths = []
    for name in ("first", "second"):
        file = kubeconfig(tmp_path, f"http://{name}:1", {"token": name})
        content = yaml.safe_load(file.read_text())
        content["contexts"][0] = {"name": name, "context": {"cluster": name, "user": name}}
        content["clusters"][0]["name"] = content["users"][0]["name"] = name
        content["current-context"] = name
        paths.append(tmp_path / name)
        paths[-1].write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", ":".join(map(str, paths)))
    assert Access().server == "http://first:1"


@pytest.mark.parametrize(
    "content",
    ["[", "[1]", "a", "{contexts: [1]}", "{current-context: x, contexts: [{name: x}]}"],
)
def test_a_file_that_is_no_kubeconfig_is_told_as_that(tmp_path: Path, content: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    with pytest.raises(PermanentError, match="no access to a cluster by /"):
        Access(file)


def test_a_token_of_several_lines_is_told(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="the token holds a line break"):
        Access(kubeconfig(tmp_path, "http://127.0.0.1:1", {"token": "one\ntwo"}))


def test_without_credentials_it_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="--kubeconfig"):
        Access(tmp_path / "absent")


async def test_an_apply_names_the_manager_and_the_object_that_is_meant(
    server: Server, api: Cluster
) -> None:
    await api.apply(DEPLOYMENTS, WANTED, uid="u-1")
    await api.apply(MODELS, WANTED, uid=None, subresource="status")

    (method, path, query, body), (_, status_path, _, created) = server.seen
    assert (method, path) == ("PATCH", "/apis/apps/v1/namespaces/vision/deployments/m")
    assert query == {"fieldManager": "inferencemodel-operator", "force": "true"}
    assert body["metadata"]["uid"] == "u-1"
    assert status_path.endswith("/inferencemodels/m/status")
    assert "uid" not in created["metadata"]
    assert "uid" not in WANTED["metadata"]


async def test_a_list_is_read_page_by_page(server: Server, api: Cluster) -> None:
    a, b = ({"metadata": {"name": n, "uid": n, "resourceVersion": "1"}} for n in "ab")
    server.answers = [
        (200, {"metadata": {"resourceVersion": "2", "continue": "next"}, "items": [a]}),
        (200, {"metadata": {"resourceVersion": "2", "continue": ""}, "items": [b]}),
    ]

    pages = [page async for page in api.list(SERVICES, None)]

    assert [page["items"] for page in pages] == [[a], [b]]
    queries = [query for _, _, query, _ in server.seen]
    assert queries[1]["continue"] == "next"
    assert {query["labelSelector"] for query in queries} == {
        "app.kubernetes.io/managed-by=inferencemodel-operator"
    }


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "good",
        {},
        {"metadata": None},
        {"metadata": {"resourceVersion": 1}},
        {"metadata": {"resourceVersion": "1"}, "items": {"a": 1}},
        {"metadata": {"resourceVersion": "1"}, "items": [None]},
        {"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "a"}}]},
        {"metadata": {"resourceVersion": "1", "continue": "next"}},
    ],
)
async def test_what_answers_in_place_of_the_api_server_is_no_list(
    server: Server, api: Cluster, answer: Any
) -> None:
    server.answers = [(200, answer)] * 3
    with pytest.raises(ApiUnavailableError, match="trying again"):
        _ = [page async for page in api.list(SERVICES, None)]
    assert len(server.seen) <= 2


@pytest.mark.parametrize(
    "line",
    [None, [], {}, {"type": "ADDED"}, {"type": "ADDED", "object": {}}, {"type": 1, "object": None}],
)
async def test_what_answers_in_place_of_the_api_server_is_no_watch(
    server: Server, api: Cluster, line: Any
) -> None:
    server.lines = [line]
    with pytest.raises(ApiUnavailableError, match="no event of a watch"):
        _ = [event async for event in api.watch(SERVICES, None, "7")]


async def test_a_watch_that_is_to_be_begun_later_says_when(server: Server, api: Cluster) -> None:
    server.headers = {"Retry-After": "3"}
    server.refuse(429, "too many requests")
    with pytest.raises(ApiUnavailableError) as told:
        _ = [event async for event in api.watch(SERVICES, None, "7")]
    assert told.value.retry_after == 3


async def test_what_is_not_there_is_none_and_deleting_it_is_no_error(
    server: Server, api: Cluster
) -> None:
    for _ in range(3):
        server.refuse(404, "not found")
    assert await api.get(CONFIG_MAPS, "vision", "m") is None
    assert await api.annotate(CONFIG_MAPS, "vision", "m", uid="u", annotations={}) is None
    await api.delete(CONFIG_MAPS, "vision", "m", uid="u")
    assert server.seen[-1][3]["preconditions"] == {"uid": "u"}


async def test_an_annotation_is_taken_from_the_very_view_that_was_read(
    server: Server, api: Cluster
) -> None:
    server.answers.append((200, {"metadata": {"name": "m"}}))
    server.refuse(409, "the object has been modified")
    taken = {"inferencemodel.dev/abort": None}
    await api.annotate(MODELS, "vision", "m", uid="u", version=7, annotations=taken)
    (method, path, _, body) = server.seen[-1]
    assert (method, path.rpartition("/")[2]) == ("PATCH", "m")
    assert body == {"metadata": {"uid": "u", "resourceVersion": "7", "annotations": taken}}
    with pytest.raises(ConflictError):
        await api.annotate(MODELS, "vision", "m", uid="u", version=7, annotations=taken)


async def test_a_refusal_is_read_with_its_code_and_names_the_object(
    server: Server, api: Cluster
) -> None:
    server.refuse(422, "spec.x: Invalid value")
    with pytest.raises(RefusedError, match=r"Deployment vision/m was refused .* Invalid value"):
        await api.apply(DEPLOYMENTS, WANTED, uid=None)
    server.refuse(422, "status.x: Invalid value")
    with pytest.raises(StatusRefusedError, match="the status of InferenceModel vision/m was"):
        await api.apply(MODELS, WANTED, uid="u", subresource="status")
    server.refuse(409, "the object has been modified")
    with pytest.raises(ConflictError, match="apply Deployment vision/m: the object has been"):
        await api.apply(DEPLOYMENTS, WANTED, uid="u")


async def test_a_server_that_is_away_heals_by_waiting(tmp_path: Path) -> None:
    async with reached(kubeconfig(tmp_path, "http://127.0.0.1:9", {"token": "t"})) as made:
        with pytest.raises(ApiUnavailableError, match="get Service vision/m: "):
            await made.get(SERVICES, "vision", "m")


async def test_a_kind_that_is_not_installed_is_told_apart(server: Server, api: Cluster) -> None:
    server.refuse(404, "no group")
    assert not await api.offers(MODELS)
    server.answers = [(200, {"resources": [{"name": "inferencemodels"}]})]
    assert await api.offers(MODELS)


async def test_a_watch_gives_events_until_it_ends(server: Server, api: Cluster) -> None:
    server.lines = [
        {"type": "ADDED", "object": {"metadata": {"name": "a", "resourceVersion": "8"}}},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
    ]

    events = [(kind, obj["metadata"]) async for kind, obj in api.watch(SERVICES, "ns", "7")]

    assert events == [
        ("ADDED", {"name": "a", "resourceVersion": "8"}),
        ("BOOKMARK", {"resourceVersion": "9"}),
    ]
    _, path, query, _ = server.seen[0]
    assert path == "/api/v1/namespaces/ns/services"
    assert (query["watch"], query["resourceVersion"]) == ("true", "7")
    assert query["labelSelector"] == "app.kubernetes.io/managed-by=inferencemodel-operator"


@pytest.mark.parametrize(
    ("code", "error"), [(410, ExpiredError), (500, ApiUnavailableError), (429, ApiUnavailableError)]
)
async def test_a_watch_tells_why_it_can_not_go_on(
    server: Server, api: Cluster, code: int, error: type[Exception]
) -> None:
    server.lines = [{"type": "ERROR", "object": {"code": code, "message": "too old"}}]
    with pytest.raises(error, match="too old"):
        _ = [event async for event in api.watch(SERVICES, None, "7")]

    server.lines = []
    server.refuse(code, "too old")
    with pytest.raises(error, match="too old"):
        _ = [event async for event in api.watch(SERVICES, None, "7")]


async def test_an_api_server_that_asks_to_come_later_says_when(
    server: Server, api: Cluster
) -> None:
    server.headers = {"Retry-After": "3"}
    server.refuse(429, "too many requests")
    with pytest.raises(ApiUnavailableError) as told:
        await api.get(SERVICES, "ns", "s")
    assert told.value.retry_after == 3

    server.headers = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    server.refuse(503, "away")
    with pytest.raises(ApiUnavailableError) as told:
        await api.get(SERVICES, "ns", "s")
    assert told.value.retry_after == 0


async def test_a_creation_names_a_version_that_no_object_has(server: Server, api: Cluster) -> None:
    wanted = {"metadata": {"namespace": "ns", "name": "s"}}
    await api.apply(SERVICES, wanted, uid=None)
    await api.apply(SERVICES, wanted, uid="u")
    (_, _, _, creation), (_, _, _, update) = server.seen
    assert creation["metadata"]["resourceVersion"] == "1"
    assert update["metadata"] == {"namespace": "ns", "name": "s", "uid": "u"}


async def test_a_replica_that_does_not_lead_reads_and_writes_nothing(
    server: Server, tmp_path: Path
) -> None:
    access = Access(kubeconfig(tmp_path, server.url, {"token": "t"}))
    async with cluster.connect(access, watches=0) as pool, cluster.session(pool, access) as session:
        standby = Cluster(access, session, may_write=lambda: False)
        assert await standby.get(SERVICES, "ns", "s") == {}
        with pytest.raises(NotLeadingError):
            await standby.apply(SERVICES, {"metadata": {"namespace": "ns", "name": "s"}}, uid=None)
        with pytest.raises(NotLeadingError):
            await standby.delete(SERVICES, "ns", "s", uid="u")
    assert [method for method, *_ in server.seen] == ["GET"]


async def test_a_right_to_read_one_object_is_missed_once(
    server: Server, api: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for name in ("a", "b"):
        server.refuse(403, f'services "{name}" is forbidden: User "u" cannot get resource')
        with pytest.raises(RefusedError):
            await api.get(SERVICES, "ns", name)
    assert caplog.text.count("waiting: the right to get Service") == 1
    assert await api.get(SERVICES, "ns", "a") == {}
    assert "the right to get Service is back" in caplog.text


async def test_events_that_are_many_or_long_are_asked_for_by_reason_and_fewer_at_a_time(
    server: Server, api: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "LARGEST_PAGE", 1000)
    server.answers = [
        (200, {"metadata": {}, "items": [{"note": "x" * 2000}]}),
        (200, {"metadata": {"continue": "t"}, "items": [{"note": "theirs"}]}),
        (200, {"metadata": {}, "items": [{"note": "why"}]}),
        (200, {"metadata": {}, "items": []}),
    ]
    found = await api.events_about("vision", "u", ("FailedMount", "Pulled"))
    assert [event["note"] for event in found] == ["theirs", "why"]
    assert [(query["fieldSelector"], query["limit"]) for _, _, query, _ in server.seen] == [
        ("regarding.uid=u", "100"),
        ("regarding.uid=u", "25"),
        ("regarding.uid=u,reason=FailedMount", "100"),
        ("regarding.uid=u,reason=Pulled", "100"),
    ]
    server.seen.clear()
    server.answers = [(200, {"metadata": {}, "items": [{"note": "all"}]})]
    assert len(await api.events_about("vision", "u", ("FailedMount",))) == 1
    assert len(server.seen) == 1

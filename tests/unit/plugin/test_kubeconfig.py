"""What a kubeconfig says: what is read at once is what Kubernetes' client would have read."""

from __future__ import annotations

import base64
import json
import os
import pty
import ssl
import subprocess
import sys
import warnings
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import yaml

from kubectl_inferencemodel import client, kubeconfig, plain
from kubectl_inferencemodel.cluster import Cluster
from kubectl_inferencemodel.errors import ClusterError
from tests.support.certificates import Authority
from tests.support.http_servers import serving
from tests.unit.plugin import api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kubectl_inferencemodel.access import Access

Change = Callable[[dict[str, Any], dict[str, Any]], object]


class Doorkeeper(BaseHTTPRequestHandler):
    """Says who asks it."""

    def do_GET(self) -> None:
        assert isinstance(self.connection, ssl.SSLSocket)
        shown = self.connection.getpeercert() or {}
        said = [self.headers["Authorization"], str(shown.get("subject"))]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Iterator[str]:
    """Knows users by certificates of the authority, and takes those without one, too."""
    file = tmp_path / "server.pem"
    file.write_text(authority.issue("127.0.0.1"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    tls.load_verify_locations(cadata=authority.certificate)
    tls.verify_mode = ssl.CERT_OPTIONAL
    with serving(Doorkeeper, tls=tls) as url:
        yield url


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def written(folder: Path, server: str, authority: Authority, change: Change) -> Path:
    """A kubeconfig beside the files that it may name; ``change`` gets its cluster and its user."""
    identity = authority.issue("somebody")
    (folder / "authority.pem").write_text(authority.certificate)
    (folder / "identity.pem").write_text(identity)
    made = api.kubeconfig(server)
    cluster, user = made["clusters"][0]["cluster"], made["users"][0]["user"]
    cluster["certificate-authority-data"] = encoded(authority.certificate)
    change(cluster, user)
    for key, value in user.items():
        if value == "IDENTITY":
            user[key] = encoded(identity)
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(made))
    return file


def asked(access: Access) -> tuple[str, str, object]:
    headers = {"Authorization": access.authorization} if access.authorization else {}
    answer = access.pool.request("GET", access.server, headers=headers)
    return access.server, access.namespace, json.loads(answer.data)


PLAIN: dict[str, Change] = {
    "a token": lambda cluster, user: None,
    "a slash behind the server": lambda c, u: c.update(server=c["server"] + "/"),
    "an authority's file": lambda c, u: (
        c.pop("certificate-authority-data"),
        c.update({"certificate-authority": "authority.pem"}),
    ),
    "extensions": lambda c, u: c.update(extensions=[{"name": "x", "extension": {}}]),
    "nobody": lambda c, u: u.clear(),
    "a certificate": lambda c, u: u.update(
        {"token": "", "client-certificate-data": "IDENTITY", "client-key-data": "IDENTITY"}
    ),
    "a certificate's files": lambda c, u: u.update(
        {"token": "", "client-certificate": "identity.pem", "client-key": "identity.pem"}
    ),
    "a certificate beside a token": lambda c, u: u.update(
        {"client-certificate-data": "IDENTITY", "client-key-data": "IDENTITY"}
    ),
}


@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("context", [None, "there"])
def test_what_is_read_at_once_is_what_the_client_reads(
    server: str, authority: Authority, tmp_path: Path, case: str, context: str | None
) -> None:
    file = written(tmp_path, server, authority, PLAIN[case])
    found = plain.find(file, context)
    assert found is not None
    assert asked(found) == asked(client.find(file, context))


def test_the_file_of_the_environment_is_read_at_once(
    server: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, server, authority, PLAIN["a token"])
    monkeypatch.setenv("KUBECONFIG", str(file))
    found = plain.find(None, None)
    assert found is not None
    assert asked(found) == (server, "vision", ["Bearer secret", "None"])


def test_connections_share_no_context(
    server: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[ssl.SSLContext] = []
    wrap = ssl.SSLContext.wrap_socket

    def noted(self: ssl.SSLContext, sock: Any, **more: Any) -> ssl.SSLSocket:
        if not more.get("server_side"):
            used.append(self)
        return wrap(self, sock, **more)

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", noted)
    found = plain.find(written(tmp_path, server, authority, PLAIN["a certificate's files"]), None)
    assert found is not None
    held = [found.pool.request("GET", server, preload_content=False) for _ in range(3)]
    assert len({id(each) for each in used}) == len(held)
    for answer in held:
        answer.close()


def test_a_server_of_another_authority_is_not_trusted(
    server: str, tmp_path: Path, authority: Authority
) -> None:
    file = written(tmp_path, server, Authority("Somebody Else"), PLAIN["a token"])
    found = plain.find(file, None)
    assert found is not None
    with pytest.raises(Exception, match="certificate verify failed"):
        asked(found)


def test_a_key_with_a_password_is_not_asked_for(
    server: str, authority: Authority, tmp_path: Path
) -> None:
    key = subprocess.run(
        ["openssl", "genrsa", "-aes128", "-passout", "pass:secret", "2048"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    file = written(
        tmp_path,
        server,
        authority,
        lambda c, u: u.update(
            {"client-certificate-data": "IDENTITY", "client-key-data": encoded(key)}
        ),
    )
    assert plain.find(file, None) is None


PROGRAM = {"apiVersion": "client.authentication.k8s.io/v1", "command": "true"}
LEFT_TO_THE_CLIENT: dict[str, Change] = {
    "a program": lambda c, u: u.update(exec=PROGRAM),
    "a provider": lambda c, u: u.update({"auth-provider": {"name": "oidc"}}),
    "a password": lambda c, u: u.update(username="me", password="secret"),
    "a token's file": lambda c, u: u.update(tokenFile="token"),
    "somebody else": lambda c, u: u.update({"as": "somebody"}),
    "no check of the server": lambda c, u: c.update({"insecure-skip-tls-verify": True}),
    "another name of the server": lambda c, u: c.update({"tls-server-name": "somewhere"}),
    "a proxy": lambda c, u: c.update({"proxy-url": "http://127.0.0.1:1"}),
    "no TLS": lambda c, u: c.update(server="http://127.0.0.1:1"),
}


@pytest.mark.parametrize("case", LEFT_TO_THE_CLIENT)
def test_what_is_not_plain_is_left_to_the_client(
    server: str, authority: Authority, tmp_path: Path, case: str
) -> None:
    assert plain.find(written(tmp_path, server, authority, LEFT_TO_THE_CLIENT[case]), None) is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HTTPS_PROXY", "http://127.0.0.1:1"), ("KUBECONFIG", "here:there")],
)
def test_a_proxy_and_several_files_are_left_to_the_client(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert plain.find(None, None) is None


def test_the_client_is_asked_for_what_is_not_plain(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(api.kubeconfig("http://127.0.0.1:1")))
    found = kubeconfig.find(file, None)
    assert (found.server, found.authorization) == ("http://127.0.0.1:1", "Bearer secret")


def test_a_command_does_without_the_client_where_it_can(
    server: str, authority: Authority, tmp_path: Path
) -> None:
    file = written(tmp_path, server, authority, PLAIN["a certificate"])
    program = (
        "import sys; from kubectl_inferencemodel import cli; cli.run(sys.argv[1:]);"
        " sys.exit('kubernetes' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "list", f"--kubeconfig={file}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "not understood" in done.stderr
    assert done.returncode == 0


NOWHERE = "http://127.0.0.1:1"


def test_of_several_files_the_first_chooses_the_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with kubectl; Kubernetes' client goes to where the last one leads."""
    paths = [str(tmp_path / "absent"), str(tmp_path / "empty")]
    (tmp_path / "empty").touch()
    for name in ("first", "second"):
        made = api.kubeconfig(f"http://{name}:1")
        made["current-context"] = name
        for kind in ("cluster", "context", "user"):
            made[f"{kind}s"][0]["name"] = name
        made["contexts"][0]["context"] = {"cluster": name, "user": name, "namespace": name}
        made["users"][0]["user"] = {"token": name}
        (tmp_path / name).write_text(yaml.safe_dump(made))
        paths.append(str(tmp_path / name))
    monkeypatch.setenv("KUBECONFIG", ":".join(paths))
    for context, meant in ((None, "first"), ("second", "second")):
        found = kubeconfig.find(None, context)
        assert found.server == f"http://{meant}:1"
        assert (found.namespace, found.authorization) == (meant, f"Bearer {meant}")


def test_a_variable_without_a_value_leaves_the_file_of_the_home(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(yaml.safe_dump(api.kubeconfig(NOWHERE)))
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_inferencemodel", "list"],
        env={**os.environ, "HOME": str(tmp_path), "KUBECONFIG": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"the API server {NOWHERE} can't be asked" in done.stderr


def test_a_context_that_is_named_needs_no_current_one(tmp_path: Path) -> None:
    made = api.kubeconfig(NOWHERE)
    name = made.pop("current-context")
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(made))
    found = kubeconfig.find(file, name)
    assert (found.server, found.namespace) == (NOWHERE, "vision")
    with pytest.raises(ClusterError, match="it has no current-context; give a --context"):
        kubeconfig.find(file, None)


def test_a_tokens_file_ends_with_a_line_break(tmp_path: Path) -> None:
    made = api.kubeconfig(NOWHERE)
    made["users"][0]["user"] = {"tokenFile": "token"}
    (tmp_path / "token").write_text("secret\n")
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(made))
    assert kubeconfig.find(file, None).authorization == "Bearer secret"


def test_a_proxy_that_takes_another_package_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = api.kubeconfig(NOWHERE)
    made["clusters"][0]["cluster"]["proxy-url"] = "socks5://127.0.0.1:1"
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(made))
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.delitem(sys.modules, "urllib3.contrib.socks", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ClusterError, match="takes the Python package PySocks, which"):
            kubeconfig.find(file, None)


class Usher(BaseHTTPRequestHandler):
    """Notes who each request is to be from, and has nothing."""

    asked: ClassVar[list[tuple[str, list[tuple[str, str]]]]] = []

    def do_GET(self) -> None:
        meant = [(k, v) for k, v in self.headers.items() if k.startswith("Impersonate-")]
        self.asked.append((self.path.partition("?")[0].rpartition("/")[2], meant))
        body = b'{"metadata": {"resourceVersion": "1"}, "items": []}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_who_is_somebody_else_by_the_file_is_it_in_every_request(tmp_path: Path) -> None:
    """Or a command had more rights than kubectl with the same file."""
    file = tmp_path / "kubeconfig"
    Usher.asked.clear()
    with serving(Usher) as url:
        made = api.kubeconfig(url)
        made["users"][0]["user"] |= {
            "as": "alice",
            "as-uid": "one",
            "as-groups": ["readers", "writers"],
            "as-user-extra": {"example.com/scope": ["some"]},
        }
        file.write_text(yaml.safe_dump(made))
        cluster = Cluster(file, None, None)
        assert cluster.models() == []
        assert list(cluster.changes("1", everywhere=False)) == []
    meant = [
        ("Impersonate-User", "alice"),
        ("Impersonate-Uid", "one"),
        ("Impersonate-Group", "readers"),
        ("Impersonate-Group", "writers"),
        ("Impersonate-Extra-example.com%2Fscope", "some"),
    ]
    assert Usher.asked == [("inferencemodels", meant)] * 2


def test_a_program_that_fails_on_a_terminal_has_said_why_itself(tmp_path: Path) -> None:
    program = tmp_path / "login"
    program.write_text("#!/bin/sh\necho log in first >&2\nexit 1\n")
    program.chmod(0o755)
    made = api.kubeconfig(NOWHERE)
    made["users"][0]["user"] = {"exec": {**PROGRAM, "command": str(program)}}
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(made))
    terminal, its = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "kubectl_inferencemodel", "list", f"--kubeconfig={file}"],
        stdin=its,
        stdout=its,
        stderr=its,
        check=False,
    )
    os.close(its)
    shown = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert done.returncode == 1
    assert shown.splitlines() == [
        "log in first",
        "error: no credentials: the program has failed, and says why itself; see"
        " users[].user.exec of the kubeconfig",
    ]


class Proxy(BaseHTTPRequestHandler):
    """Answers in the place of all that it is asked for."""

    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Proxy-Authorization"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def test_a_models_url_is_asked_through_the_proxy_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(api.kubeconfig(NOWHERE)))
    cluster = Cluster(file, None, None)
    Proxy.asked.clear()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(Proxy) as url:
        monkeypatch.setenv("HTTP_PROXY", url.replace("://", "://me:p%40ss@"))
        url_of_model = "http://imagenet.invalid/v1/models/imagenet"
        assert cluster.ask_url(url_of_model) == (200, b"")
        with pytest.raises(ClusterError):
            cluster.ask_url(f"{NOWHERE}/v1/models/imagenet")
    shown = base64.b64encode(b"me:p@ss").decode()
    assert Proxy.asked == [(url_of_model, f"Basic {shown}")]

"""An API server's double: it answers what a test has it answer."""

from __future__ import annotations

import contextlib
import json
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from tests.support.http_servers import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Object = dict[str, Any]


def merge(into: Object, change: Object) -> None:
    """A JSON merge patch (RFC 7396)."""
    for key, value in change.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def resource(name: str = "imagenet", *, uid: str = "u-1", **status: Any) -> Object:
    """A settled InferenceModel on version 2."""
    conditions = {"Ready": "True", "Reconciling": "False", "Stalled": "False"}
    return {
        "metadata": {"name": name, "namespace": "vision", "uid": uid, "generation": 1},
        "spec": {"model": {"storageUri": "gs://models/imagenet"}},
        "status": {
            "observedGeneration": 1,
            "conditions": [
                {"type": kind, "status": state, "reason": "Some", "message": f"{kind} in words"}
                for kind, state in conditions.items()
            ],
            "replicaSummary": "3/3",
            "model": {"activeVersion": 2, "targetVersion": 2, "transitionStatus": "UpToDate"},
            **status,
        },
    }


class ApiServer:
    """Answers what a test has it answer."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.patches: list[Object] = []
        self.after_patch: Callable[[Object], None] = lambda _: None
        """What an operator does at once."""
        self.answer: Callable[[str], tuple[int, bytes]] = self.models
        self.objects = [resource()]
        self.authorizations: list[str | None] = []

    def models(self, path: str) -> tuple[int, bytes]:
        plain = path.partition("?")[0]
        if plain.endswith("/inferencemodels"):
            return 200, json.dumps({"items": self.objects}).encode()
        if plain.endswith("/pods"):
            return 200, b'{"items": []}'
        name = plain.rpartition("/")[2]
        for found in self.objects:
            if found["metadata"]["name"] == name:
                return 200, json.dumps(found).encode()
        return 404, json.dumps({"message": f"{name} not found"}).encode()

    def patch(self, path: str, change: Object) -> tuple[int, bytes]:
        """Merge a change into an object, unless that is another one by now."""
        found = next(o for o in self.objects if o["metadata"]["name"] == path.rpartition("/")[2])
        self.patches.append(change)
        for field in ("uid", "resourceVersion"):
            if change["metadata"][field] != found["metadata"].get(field, ""):
                return 409, json.dumps({"message": "the object has been modified"}).encode()
        merge(found, change)
        self.after_patch(found)
        return 200, json.dumps(found).encode()

    @contextlib.contextmanager
    def run(self) -> Iterator[str]:
        """Its URL."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                outer.authorizations.append(self.headers["Authorization"])
                status, body = outer.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def do_PATCH(self) -> None:
                outer.requests.append(f"PATCH {self.path}")
                change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.headers["Content-Type"] == "application/merge-patch+json"
                status, body = outer.patch(self.path.partition("?")[0], change)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        with serving(Handler) as url:
            yield url


def kubeconfig(server: str, **user: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "vision"}},
            {"name": "there", "context": {"cluster": "here", "user": "me", "namespace": "other"}},
        ],
        "users": [{"name": "me", "user": user or {"token": "secret"}}],
    }

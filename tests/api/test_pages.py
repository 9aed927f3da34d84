"""What pages tell to type is run as it stands there, on a real API server.

A fleet is shown there whose pods and model servers are stand-ins (``tests.support.shown``). What
needs an operator or a node that works is run on a whole cluster, by ``tests/e2e/test_pages.py``.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from demo.bucket import Bucket
from demo.storage import Storage
from devcluster import build
from devcluster.apiserver import ApiServer
from tests.support import crd, shown
from tests.support.http_servers import serving
from tests.support.kubectl import Kubectl, KubectlError
from tests.support.pages import ROOT, STATES, Block, programs, run, to_run
from tests.unit.poller.doubles import model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.api

NAMESPACE = "vision"
SYSTEM = "inferencemodel-system"
INSTALL = next(
    block for block in to_run("empty") if block.script.startswith("helm install inferencemodel ")
)
# Those that ask for no model come last, as the definition is theirs then.
BLOCKS = [*to_run("", "ends", "store", "done"), *to_run("empty", "installed")]


class _Tokens(BaseHTTPRequestHandler):
    """Who gives Google's tokens, to everybody."""

    def do_POST(self) -> None:
        body = json.dumps({"access_token": "token", "expires_in": 3600, "token_type": "Bearer"})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@dataclass
class Reader:
    """Somebody at a shell, with all that the pages ask for, in a folder of their own."""

    kubectl: Kubectl
    folder: Path
    environment: dict[str, str]

    def type(self, block: Block) -> str:
        """Have what a block asks to find, and run it."""
        assert block.mark is not None
        words = block.mark.words.split() or [""]
        state, number = words[0], words[-1]
        if state in ("empty", "installed"):
            self._nothing()
            if state == "installed":
                run(INSTALL, self.folder, self.environment)
        else:
            self._fleet(done=int(number) if state == "done" else None)
        code = int(number) if state == "ends" else 0
        return run(block, self.folder, self.environment, code=code)

    def _fleet(self, *, done: int | None) -> None:
        """The models as they are shown, and two more that pages tell of."""
        imagenet = shown.IMAGENET
        if done is not None:
            rollout = {**imagenet.of["rollout"], "version": done, "phase": "Completed"}
            imagenet = shown.Shown(
                NAMESPACE, "imagenet", version=done, replicas=4, of={"rollout": rollout}
            )
        others = (msgspec.structs.replace(imagenet, name=name) for name in ("resnet", "held"))
        with suppress(KubectlError):
            self.kubectl("delete", "inferencemodels", "--all", f"--namespace={NAMESPACE}")
        shown.put(self.kubectl, imagenet, *others)

    def _nothing(self) -> None:
        """No release, and no definition."""
        helm = [self.environment["HELM"], f"--kubeconfig={self.kubectl.kubeconfig}"]
        helmed = replace(self.kubectl, program=helm[0])
        for release in json.loads(helmed("list", "--all-namespaces", "-o", "json")):
            helmed("uninstall", release["name"], f"--namespace={release['namespace']}")
        self.kubectl("delete", "-f", str(crd.CRD), "--ignore-not-found")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    with ExitStack() as stack:
        api = stack.enter_context(ApiServer())
        stack.enter_context(crd.installed(api))
        stack.enter_context(shown.servers())
        kubectl = Kubectl(api.program, api.kubeconfig)
        shown.create(kubectl)
        kubectl("create", "namespace", SYSTEM)
        kubeconfig = folder / "kubeconfig"
        shutil.copy(api.kubeconfig, kubeconfig)
        own = replace(kubectl, kubeconfig=kubeconfig)
        own("config", "set-context", "--current", f"--namespace={NAMESPACE}")

        storage = stack.enter_context(Storage(folder, in_memory=True))
        Bucket(storage.address, "my-models").make()
        tokens = stack.enter_context(serving(_Tokens))
        helm = build.ensure(["helm"])["helm"]
        (folder / "bin").mkdir()
        (folder / "home/.local/bin").mkdir(parents=True)
        yield Reader(
            kubectl,
            _furnished(folder / "work", tokens),
            {
                "KUBECONFIG": str(kubeconfig),
                "HELM": str(helm),
                "HOME": str(folder / "home"),
                "PATH": programs(folder / "bin", kubectl=api.program, helm=helm),
                "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("plugin", "poller")),
                "STORAGE_EMULATOR_HOST": storage.url,
                "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "work/account.json"),
            },
        )


def _furnished(folder: Path, tokens: str) -> Path:
    """A folder with the files that the pages name."""
    folder.mkdir()
    for place in ("export", "15"):
        for name, content in model().items():
            (folder / place / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / place / name).write_bytes(content)
    for photo in ("photo.jpg", "cat.jpg", "dog.jpg"):
        (folder / photo).write_bytes(b"\xff\xd8\xff a photo")
    (folder / "request.json").write_text('{"instances": [{"b64": "AAAA"}]}')
    for name, place in (
        ("charts", "charts"),
        ("crds", "crds"),
        ("policies", "manifests/components/policies"),
    ):
        (folder / name).symlink_to(ROOT / place)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "project_id": "development",
        "private_key_id": "key",
        "private_key": pem.decode(),
        "client_email": "publisher@development.iam.gserviceaccount.com",
        "token_uri": f"{tokens}/token",
    }
    (folder / "account.json").write_text(json.dumps(account))
    return folder


def test_there_are_blocks_of_every_state() -> None:
    for state in ("", *STATES):
        assert to_run(state), state


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_commands_of_a_block_succeed_as_they_stand(reader: Reader, block: Block) -> None:
    reader.type(block)

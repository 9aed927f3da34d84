"""Builds the Go programs, each once, into a cache that is keyed by all that goes into them."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devcluster import locks, paths
from devcluster.errors import BuildError, PreconditionError, with_log
from devcluster.progress import say, step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Since this version Go fetches the newer toolchain that a go.mod asks for by itself.
OLDEST_GO = (1, 21)

_KUBERNETES = "k8s.io/kubernetes"
_CONTAINERD = "github.com/containerd/containerd/v2"
_KEDA_HTTP = "github.com/kedacore/http-add-on"
_VERSION_OF_KUBERNETES = (
    "-X k8s.io/component-base/version.gitVersion={version}"
    " -X k8s.io/component-base/version.gitMajor=1"
    " -X k8s.io/component-base/version.gitMinor={minor}"
)


@dataclass(frozen=True)
class Tool:
    """One program: where its go.mod is and how it is linked."""

    name: str
    module: str
    """The directory below ``tools/`` that holds its go.mod."""
    package: str
    required: str = ""
    """The module in that go.mod whose version is the program's, when it wants to be told."""
    linker: str = ""
    """Flags of the linker; ``{version}`` and ``{minor}`` stand for that version's."""
    tags: str = ""

    @property
    def directory(self) -> Path:
        """Where Go is run for it."""
        return paths.TOOLS / self.module

    def version(self) -> str:
        """The version that its go.mod requires, such as ``v1.36.3``; empty for our own."""
        if not self.required:
            return ""
        found = re.search(
            rf"^(?:require )?\s*{re.escape(self.required)} (v\S+)",
            (self.directory / "go.mod").read_text(),
            re.MULTILINE,
        )
        if found is None:
            raise BuildError(f"{self.directory}/go.mod does not require {self.required}")
        return found.group(1)

    def flags(self) -> list[str]:
        """The arguments of ``go build`` before the output and the package."""
        version = self.version()
        minor = version.split(".")[1] if version else ""
        linker = f"-s -w {self.linker.format(version=version, minor=minor)}".strip()
        tags = [f"-tags={self.tags}"] if self.tags else []
        return ["-buildvcs=false", *tags, f"-ldflags={linker}"]

    def key(self, go: str) -> str:
        """Changes when the program would: its sources, their sums, the flags, the compiler."""
        digest = hashlib.sha256("\0".join([go, self.package, *self.flags()]).encode())
        for path in sorted(self.directory.rglob("*")):
            if path.name in {"go.mod", "go.sum"} or path.suffix == ".go":
                digest.update(f"\0{path.relative_to(self.directory)}\0".encode())
                digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def program(self) -> Path:
        """Where the built program lies, or will."""
        key = self.key(go_version(self.module))
        return paths.cache() / "programs" / f"{self.name}-{key}" / self.name


def _kubernetes(name: str) -> Tool:
    return Tool(
        name,
        "kubernetes",
        f"{_KUBERNETES}/cmd/{name}",
        required=_KUBERNETES,
        linker=_VERSION_OF_KUBERNETES,
    )


def _containerd(name: str) -> Tool:
    return Tool(
        name,
        "containerd",
        f"{_CONTAINERD}/cmd/{name}",
        required=_CONTAINERD,
        linker=f"-X {_CONTAINERD}/version.Version={{version}}",
        tags="no_btrfs",
    )


def _keda_http(name: str) -> Tool:
    return Tool(
        f"keda-http-{name}",
        "keda-http",
        f"{_KEDA_HTTP}/{name}",
        required=_KEDA_HTTP,
        linker=f"-X {_KEDA_HTTP}/pkg/build.version={{version}}",
    )


_ALL = (
    Tool("etcd", "etcd", "go.etcd.io/etcd/server/v3", required="go.etcd.io/etcd/server/v3"),
    _kubernetes("kubectl"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    _containerd("containerd"),
    _containerd("containerd-shim-runc-v2"),
    _containerd("ctr"),
    Tool(
        "coredns",
        "coredns",
        "github.com/coredns/coredns",
        required="github.com/coredns/coredns",
    ),
    Tool(
        "traefik",
        "traefik",
        "github.com/traefik/traefik/v3/cmd/traefik",
        required="github.com/traefik/traefik/v3",
        linker="-X github.com/traefik/traefik/v3/pkg/version.Version={version}",
    ),
    Tool(
        "metrics-server",
        "metrics-server",
        "sigs.k8s.io/metrics-server/cmd/metrics-server",
        required="sigs.k8s.io/metrics-server",
    ),
    Tool("pause", "pause", "."),
    # Only where there are several nodes.
    Tool("share-images", "share-images", "."),
    Tool(
        "fake-gcs-server",
        "bucket",
        "github.com/fsouza/fake-gcs-server",
        required="github.com/fsouza/fake-gcs-server",
    ),
    Tool("pubsub-server", "bucket", "./pubsub-server"),
    Tool("s5cmd", "s3", "github.com/peak/s5cmd/v2", required="github.com/peak/s5cmd/v2"),
    Tool(
        "versitygw",
        "s3",
        "github.com/versity/versitygw/cmd/versitygw",
        required="github.com/versity/versitygw",
    ),
    Tool(
        "helm",
        "helm",
        "helm.sh/helm/v4/cmd/helm",
        required="helm.sh/helm/v4",
        linker="-X helm.sh/helm/v4/internal/version.version={version}",
    ),
    # It checks rules; where Prometheus would find its targets is none of its business here.
    Tool(
        "promtool",
        "promtool",
        "github.com/prometheus/prometheus/cmd/promtool",
        required="github.com/prometheus/prometheus",
        linker="-X github.com/prometheus/common/version.Version={version}",
        tags="remove_all_sd",
    ),
    # It finds its targets in Kubernetes, and nowhere else.
    Tool(
        "prometheus",
        "prometheus",
        "github.com/prometheus/prometheus/cmd/prometheus",
        required="github.com/prometheus/prometheus",
        linker="-X github.com/prometheus/common/version.Version={version}",
        tags="remove_all_sd,enable_kubernetes_sd",
    ),
    Tool(
        "kube-router",
        "kube-router",
        "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
        required="github.com/cloudnativelabs/kube-router/v2",
        linker="-X github.com/cloudnativelabs/kube-router/v2/pkg/version.Version={version}",
    ),
    # How Flux judges an object, and the Lua in which Argo CD is told how to.
    Tool("kstatus", "gitops", "./kstatus"),
    Tool(
        "glua",
        "gitops",
        "github.com/yuin/gopher-lua/cmd/glua",
        required="github.com/yuin/gopher-lua",
    ),
    # What a release is checked with: its workflows, its plugin's manifest, its bundle for OLM.
    Tool(
        "actionlint",
        "actionlint",
        "github.com/rhysd/actionlint/cmd/actionlint",
        required="github.com/rhysd/actionlint",
    ),
    Tool("krew", "krew", "sigs.k8s.io/krew/cmd/krew", required="sigs.k8s.io/krew"),
    Tool("bundle-check", "olm", "./bundle-check"),
    Tool(
        "keda-operator",
        "keda",
        "github.com/kedacore/keda/v2/cmd/operator",
        required="github.com/kedacore/keda/v2",
        linker="-X github.com/kedacore/keda/v2/version.Version={version}",
    ),
    _keda_http("operator"),
    _keda_http("interceptor"),
    _keda_http("scaler"),
)
#: Every program, in the order in which they are built.
TOOLS = {tool.name: tool for tool in _ALL}
#: What an API server alone needs.
API_TOOLS = ("etcd", "kubectl", "kube-apiserver")
#: What several nodes need beside what one does.
SEVERAL_TOOLS = ("share-images",)
#: What runs in pods of the development bucket.
BUCKET_TOOLS = ("fake-gcs-server", "pubsub-server")
#: What tests check the chart, the alert rules, the policies and the status with.
CHECK_TOOLS = ("helm", "promtool", "kube-router", "kstatus", "glua")
#: KEDA, and its add-on that scales by requests.
KEDA_TOOLS = ("keda-operator", "keda-http-operator", "keda-http-interceptor", "keda-http-scaler")
#: What `make test-release` checks a release with.
RELEASE_TOOLS = ("actionlint", "krew", "bundle-check")
#: What `make board` draws the board with.
BOARD_TOOLS = ("prometheus",)
#: All but KEDA, which a test of its own builds, as it takes longer than all others together, and
#: but what only a release is checked with, or the board drawn.
USUAL_TOOLS = tuple(
    name for name in TOOLS if name not in {*KEDA_TOOLS, *RELEASE_TOOLS, *BOARD_TOOLS}
)
#: What the poller is measured beside.
BENCH_TOOLS = ("s5cmd", "versitygw")
#: What a node needs.
NODE_TOOLS = tuple(
    name
    for name in TOOLS
    if name
    not in {
        *SEVERAL_TOOLS,
        *BUCKET_TOOLS,
        *CHECK_TOOLS,
        *BENCH_TOOLS,
        *KEDA_TOOLS,
        *RELEASE_TOOLS,
        *BOARD_TOOLS,
    }
)


def find(name: str) -> Tool:
    """A program by its name.

    Raises:
        BuildError: there is none of that name.
    """
    if name not in TOOLS:
        raise BuildError(f"no program is called {name}; there are {', '.join(TOOLS)}")
    return TOOLS[name]


def ensure(names: Sequence[str]) -> dict[str, Path]:
    """Build what is not built yet, and return where each program lies.

    Raises:
        PreconditionError: Go is missing or too old.
        BuildError: a program does not build.
    """
    tools = [find(name) for name in names]
    programs = {tool.name: tool.program() for tool in tools}
    missing = [tool for tool in tools if not programs[tool.name].exists()]
    if missing:
        say(
            f"building {len(missing)} of {len(tools)} programs into {paths.cache()} "
            "(each once; minutes in all on a machine that has never done it)"
        )
        with locks.exclusive("build"):
            for number, tool in enumerate(missing, 1):
                if not programs[tool.name].exists():
                    _build(tool, programs[tool.name], f"{number} of {len(missing)}")
    return programs


def _build(tool: Tool, program: Path, position: str) -> None:
    log = paths.cache() / "logs" / f"build-{tool.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    program.parent.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(".unfinished")
    argv = [
        *nice(),
        _go() or "go",
        "build",
        "-v",
        *tool.flags(),
        "-o",
        str(unfinished),
        tool.package,
    ]
    title = " ".join(filter(None, [tool.name, tool.version(), f"({position})"]))
    with step(f"building {title}") as update, log.open("w") as written:
        build = subprocess.Popen(
            argv,
            cwd=tool.directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with build:
            packages = 0
            for line in build.stdout or ():
                written.write(line)
                packages += not line.startswith("go:")
                update(f"{packages} packages compiled" if packages else line.strip())
        if build.returncode != 0:
            written.flush()
            raise BuildError(with_log(f"{title} does not build", log))
        unfinished.replace(program)


def _environment() -> dict[str, str]:
    """Go's environment, without what would make the result depend on the caller's shell."""
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}


def _go() -> str | None:
    """Where Go is: in PATH, or where its own installer puts it, which sudo leaves out of PATH."""
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def nice() -> list[str]:
    """What goes before a long computation, so that the machine stays usable."""
    return ["nice", "-n", "5"] if shutil.which("nice") else []


@functools.cache
def go_version(module: str) -> str:
    """The compiler that Go uses in a module, such as ``go1.26.8``.

    Raises:
        PreconditionError: Go is missing or too old.
    """
    if _go() is None:
        raise PreconditionError(
            f"Go is missing: install Go {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer and have its bin "
            "folder in PATH (the embedded cluster's programs are built with it)"
        )
    asked = subprocess.run(
        [_go() or "go", "env", "GOVERSION"],
        cwd=paths.TOOLS / module,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    version = asked.stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    if asked.returncode != 0 or found is None:
        raise PreconditionError(
            f"`go env GOVERSION` in {paths.TOOLS / module} fails: {asked.stderr.strip()}"
        )
    if (int(found[1]), int(found[2])) < OLDEST_GO:
        raise PreconditionError(
            f"{version} is too old: install Go {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer"
        )
    return version

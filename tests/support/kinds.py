"""Kinds that a cluster offers only when their makers are installed."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import paths
from tests.support.crd import until_served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devcluster.client import Api

_GATEWAY_API = "sigs.k8s.io/gateway-api"
_PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator"
_KEDA = "github.com/kedacore/keda/v2"
_KEDA_HTTP = "github.com/kedacore/http-add-on"
_PINS = Path(__file__).with_name("definitions")


def gateway_api() -> Path:
    """The folder of Gateway API's own definitions, of the release that Traefik is built with.

    Raises:
        subprocess.CalledProcessError: the module can't be had.
    """
    return _module(_GATEWAY_API, paths.TOOLS / "traefik") / "config/crd/standard"


def prometheus_operator() -> Path:
    """The folder of Prometheus Operator's own definitions.

    Raises:
        subprocess.CalledProcessError: the module can't be had.
    """
    return _module(_PROMETHEUS_OPERATOR, _PINS) / "example/prometheus-operator-crd"


def keda() -> Path:
    """The sources of KEDA, of the release that is built here.

    Raises:
        subprocess.CalledProcessError: the module can't be had.
    """
    return _module(_KEDA, paths.TOOLS / "keda")


def keda_http() -> Path:
    """The sources of KEDA's HTTP add-on, of the release that is built here.

    Raises:
        subprocess.CalledProcessError: the module can't be had.
    """
    return _module(_KEDA_HTTP, paths.TOOLS / "keda-http")


def _module(name: str, within: Path) -> Path:
    """The sources of a Go module, in the version that the ``go.mod`` of a folder asks for."""
    found = subprocess.run(
        ["go", "mod", "download", "-json", name],
        cwd=within,
        env={**os.environ, "GOFLAGS": "-mod=mod"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return Path(json.loads(found.stdout)["Dir"])


@contextmanager
def installed(api: Api) -> Iterator[None]:
    """Offer Gateway API's routes, KEDA's ScaledObject and its add-on's InterceptorRoute."""
    found = [f"{gateway_api()}/gateway.networking.k8s.io_{kind}.yaml" for kind in _ROUTES]
    found.append(f"{keda()}/config/crd/bases/keda.sh_scaledobjects.yaml")
    found.append(f"{keda_http()}/config/crd/bases/http.keda.sh_interceptorroutes.yaml")
    files = [option for path in found for option in ("-f", path)]
    api.kubectl("apply", "--server-side", *files)
    until_served(api.kubeconfig, *_NAMES)
    try:
        yield
    finally:
        remove(api.kubectl, *_NAMES)


def remove(kubectl: Callable[..., str], *crds: str) -> None:
    """Take CRDs away, with all objects of theirs."""
    for name in crds:
        # The API server opens a kind's storage with the first request for it. Where that is the
        # deletion's own, it fails with "storage is (re)initializing", and is tried again minutes
        # later.
        kubectl("get", name, "--all-namespaces")
    kubectl("delete", "crd", *crds)


_ROUTES = ("httproutes", "grpcroutes")
_NAMES = (
    *(f"{kind}.gateway.networking.k8s.io" for kind in _ROUTES),
    "scaledobjects.keda.sh",
    "interceptorroutes.http.keda.sh",
)

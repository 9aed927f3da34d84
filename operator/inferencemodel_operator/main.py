"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from inferencemodel_operator import garbage, limits, logs, names, selectors, shards
from inferencemodel_operator.errors import OperatorError
from inferencemodel_operator.process import Operator
from inferencemodel_operator.settings import (
    DEFAULT_CLUSTER_DOMAIN,
    DEFAULT_INTERCEPTOR,
    DEFAULT_MAX_RESTARTS,
    DEFAULT_NAMESPACE,
    DEFAULT_POLLER_IMAGE,
    DEFAULT_SCALER,
    Options,
    Settings,
    Upstream,
)
from inferencemodel_operator.values import Share

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_UPSTREAM: Final = re.compile(
    rf"(?P<namespace>{_NAMESPACE.pattern})/(?P<service>{_NAMESPACE.pattern}):(?P<port>[0-9]{{1,5}})"
)
_DOMAIN: Final = re.compile(rf"{_NAMESPACE.pattern}([.]{_NAMESPACE.pattern})*")
_IMAGE: Final = re.compile(r"[!-~]+")
_LONGEST_NAME: Final = 253

LAST_PORT: Final = 65535

logger = logging.getLogger(__name__)


async def run(options: Options) -> None:
    """Run the operator until SIGTERM or SIGINT.

    Raises:
        PermanentError: there are no credentials for a cluster, or another replica leads.
        OSError: the port for health and metrics is taken.
    """
    current = asyncio.current_task()
    assert current is not None  # noqa: S101
    # Until kopf takes signals over: the first process of a container has no default for them.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
    async with Operator(options) as operator:
        await operator.wait()


def parse(arguments: Sequence[str] | None = None) -> tuple[Options, str, str]:
    """Read the command line: options, log format, log level."""
    parser = argparse.ArgumentParser(prog="inferencemodel_operator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run", help="run the operator until it is told to end")
    command.add_argument(
        "--namespace",
        action="append",
        default=[],
        metavar="NS",
        help="serve this namespace; repeatable; default: all",
    )
    command.add_argument(
        "--selector",
        default=None,
        metavar="LABELS",
        help="serve only InferenceModels with these labels, such as team=vision; default: all",
    )
    command.add_argument("--kubeconfig", type=Path, help="default: service account, or KUBECONFIG")
    command.add_argument(
        "--poller-image", default=os.environ.get("POLLER_IMAGE", DEFAULT_POLLER_IMAGE)
    )
    command.add_argument(
        "--poller-image-pull-policy", choices=("Always", "IfNotPresent", "Never"), default=None
    )
    command.add_argument(
        "--max-restarts",
        type=_share,
        default=DEFAULT_MAX_RESTARTS,
        metavar="N",
        help="the most InferenceModels, a number or a share such as 10%%, whose pods are replaced "
        "at a time because their template changes by the operator's own doing (another poller "
        "image or release); default: 5",
    )
    command.add_argument(
        "--keda-http-interceptor",
        type=_upstream,
        default=DEFAULT_INTERCEPTOR,
        metavar="NAMESPACE/SERVICE:PORT",
        help="the proxy of KEDA's HTTP add-on; default: "
        "keda/keda-add-ons-http-interceptor-proxy:8080",
    )
    command.add_argument(
        "--keda-http-scaler",
        type=_upstream,
        default=DEFAULT_SCALER,
        metavar="NAMESPACE/SERVICE:PORT",
        help="that add-on's scaler; default: keda/keda-add-ons-http-external-scaler:9090",
    )
    command.add_argument(
        "--cluster-domain",
        type=_domain,
        default=DEFAULT_CLUSTER_DOMAIN,
        metavar="DOMAIN",
        help="the domain of the cluster's Services; default: cluster.local",
    )
    command.add_argument(
        "--poller-access",
        choices=("auto", "direct", "proxy"),
        default="auto",
        help="reach pods by their address or through the API server; auto: by address in a cluster",
    )
    command.add_argument(
        "--lease-namespace",
        default=os.environ.get("POD_NAMESPACE", ""),
        metavar="NS",
        help="where the Lease is by which one of several replicas leads; default: POD_NAMESPACE; "
        "without either this is the only replica",
    )
    command.add_argument(
        "--lease-name",
        default=None,
        metavar="NAME",
        help="of that Lease; operators that serve different InferenceModels need one each. "
        f"Default: {names.FIELD_MANAGER}, with a hash of the selector where there is one",
    )
    command.add_argument("--http-port", type=_port, default=8080, help="0 for none")
    command.add_argument("--log-format", choices=("json", "text"), default="json")
    command.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info"
    )
    given = parser.parse_args(arguments)
    problem = _problem(given)
    if problem is not None:
        # One line, and not the dozen that tell of all options.
        parser.exit(2, f"{parser.prog}: {problem}\n")
    options = Options(
        kubeconfig=given.kubeconfig,
        namespaces=tuple(dict.fromkeys(given.namespace)),
        selector=given.selector or None,
        poller_access=given.poller_access,
        http_port=given.http_port,
        max_restarts=given.max_restarts,
        lease=_lease(given),
        settings=Settings(
            poller_image=given.poller_image,
            poller_image_pull_policy=given.poller_image_pull_policy,
            namespace=os.environ.get("POD_NAMESPACE") or DEFAULT_NAMESPACE,
            interceptor=given.keda_http_interceptor,
            scaler=given.keda_http_scaler,
            cluster_domain=given.cluster_domain,
        ),
    )
    return options, given.log_format, given.log_level


def _lease(given: argparse.Namespace) -> tuple[str, str] | None:
    if not given.lease_namespace:
        return None
    return given.lease_namespace, given.lease_name or shards.lease_name(given.selector or None)


def _problem(given: argparse.Namespace) -> str | None:
    """What the API server would refuse again and again."""
    for namespace in given.namespace:
        if not _NAMESPACE.fullmatch(namespace):
            return f"--namespace={namespace!r}: not a name of a namespace"
    if given.lease_namespace and not _NAMESPACE.fullmatch(given.lease_namespace):
        return f"--lease-namespace={given.lease_namespace!r}: not a name of a namespace"
    if given.lease_name and not _is_lease_name(given.lease_name):
        return f"--lease-name={given.lease_name!r}: not a name of a Lease"
    if not _IMAGE.fullmatch(given.poller_image):
        return f"--poller-image={given.poller_image!r}: no image such as {DEFAULT_POLLER_IMAGE}"
    try:
        selectors.check(given.selector or "")
    except ValueError as problem:
        return f"--selector={given.selector!r}: {problem}"
    return None


def _is_lease_name(text: str) -> bool:
    return len(text) <= _LONGEST_NAME and _DOMAIN.fullmatch(text) is not None


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text, re.ASCII) or int(text) > LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 0 to {LAST_PORT}")
    return int(text)


def _share(text: str) -> Share:
    try:
        return Share.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _upstream(text: str) -> Upstream:
    found = _UPSTREAM.fullmatch(text)
    if found is None or not 1 <= int(found["port"]) <= LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAMESPACE/SERVICE:PORT")
    return Upstream(namespace=found["namespace"], service=found["service"], port=int(found["port"]))


def _domain(text: str) -> str:
    if not _DOMAIN.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no domain such as {DEFAULT_CLUSTER_DOMAIN}")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options, log_format, log_level = parse(arguments)
    logs.configure(log_format, log_level)
    limits.raise_open_files()
    garbage.search_seldom()
    try:
        with suppress(asyncio.CancelledError):
            asyncio.run(run(options))
    except (OperatorError, OSError) as error:
        logger.error("%s", error)  # noqa: TRY400  the message says it all
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception:
        logger.exception("ended unexpectedly")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The commands of ``python3 -m devcluster``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import build, packages, paths, recipes
from devcluster.addons import NAMES
from devcluster.apiserver import ApiServer
from devcluster.cluster import Cluster
from devcluster.errors import DevclusterError, UsageError
from devcluster.progress import say
from devcluster.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    _Parser = argparse.ArgumentParser


def command_line() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="devcluster",
        description="A real Kubernetes, of one node or several, for demo and tests.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str) -> _Parser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    up = add("up", _up, "bring the cluster up, or repair it; prints its kubeconfig")
    up.add_argument("--http-port", type=_port, help="port of the ingress on 127.0.0.1 (80)")
    up.add_argument("--https-port", type=_port, help="the same with TLS (443)")
    up.add_argument(
        "--nodes", type=int, help="nodes, each with a network and a disk of its own (1)"
    )
    down = add("down", _down, "take the cluster away; built programs and images stay cached")
    down.add_argument("--purge", action="store_true", help="remove the cache as well")
    add("reset", _reset, "a clean API: everything in the cluster is gone, its images stay")
    status = add("status", _status, "what runs, and where things are; exit code 1 unless all runs")
    status.add_argument("--json", action="store_true", help="for programs")
    add("kubeconfig", _kubeconfig, "print the path of the kubeconfig")
    logs = add("logs", _logs, "the last lines of a program's log, or where the logs are")
    logs.add_argument("program", nargs="?")
    logs.add_argument("--lines", type=int, default=50, help="how many (%(default)s)")

    kill = add("kill", _kill, "have one program die at once; `up` starts it again")
    kill.add_argument("program", help="its name in status, such as etcd or node-1/kubelet")

    text = "have one of several nodes fail, and recover"
    _add_node_commands(commands.add_parser("node", help=text, description=text))

    load = add("load-image", _load_image, "bring images onto the node; prints their names")
    load.add_argument(
        "image",
        nargs="+",
        help="an archive (docker save, OCI), one of the project's (built where needed), or the "
        "name of one in buildah's store",
    )
    image = add("build-image", _build_image, "build images of the project, and bring them onto it")
    image.add_argument("image", nargs="*", help="all of them when none is named")

    command = add("build", _build, "build the Go programs: all but those of KEDA, or those named")
    command.add_argument("program", nargs="*")

    for name, run, text in (
        ("api-up", _api_up, "start an API server without a node; prints its kubeconfig"),
        ("api-down", _api_down, "stop the API server that api-up started"),
    ):
        command = add(name, run, text)
        command.add_argument(
            "--state-dir",
            type=Path,
            default=paths.default_api_state(),
            help="where it lives; one API server for each directory (%(default)s)",
        )
    return parser


def _add_node_commands(parser: _Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, run, text in (
        ("stop", _node_stop, "its programs, containers and network are gone at once"),
        ("start", _node_start, "boot it, or repair it, and wait until it is Ready"),
        ("cut", _node_cut, "nothing it sends arrives, and nothing reaches it"),
        ("heal", _node_heal, "undo cut and fill"),
        ("fill", _node_fill, "its disk has no room left"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("name", help="of the node, such as node-2")
        if name == "cut":
            command.add_argument(
                "--from",
                dest="others",
                choices=("all", "control-plane"),
                default="all",
                help="who does not reach it (%(default)s)",
            )


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError(f"{port} is no port")
    return port


def _up(arguments: argparse.Namespace) -> None:
    packages.require_linux_root()
    cluster = Cluster()
    kept = cluster.settings()
    settings = Settings(
        http_port=arguments.http_port or kept.http_port,
        https_port=arguments.https_port or kept.https_port,
        nodes=arguments.nodes or kept.nodes,
    )
    kubeconfig = cluster.up(settings).kubeconfig
    say(f"the cluster is up; for kubectl: export KUBECONFIG={kubeconfig}")
    print(kubeconfig)


def _down(arguments: argparse.Namespace) -> None:
    Cluster().down()
    if arguments.purge:
        shutil.rmtree(paths.cache(), ignore_errors=True)


def _reset(_: argparse.Namespace) -> None:
    print(Cluster().reset().kubeconfig)


def _status(arguments: argparse.Namespace) -> None:
    status = Cluster().status()
    if arguments.json:
        print(json.dumps(asdict(status), indent=1))
    else:
        for name, pid in status.programs.items():
            print(f"{name:24} {f'pid {pid}' if pid else 'not running'}")
        for name, ready in status.nodes.items():
            print(f"{name:24} {'ready' if ready else 'not ready'}")
        for field in ("kubeconfig", "url", "ingress", "ingress_tls", "audit_log", "logs", "cache"):
            print(f"{field.replace('_', ' '):24} {getattr(status, field)}")
    if not (status.running and status.node_ready):
        raise UsageError("the cluster is not whole: bring it up with `devcluster up`")


def _kubeconfig(_: argparse.Namespace) -> None:
    print(Cluster().api().kubeconfig)


def _logs(arguments: argparse.Namespace) -> None:
    cluster = Cluster()
    logs = cluster.logs()
    if arguments.program is None:
        for path in logs.values():
            print(path)
    elif arguments.program in NAMES:
        deployment = f"deployment/{arguments.program}"
        tail = f"--tail={arguments.lines}"
        print(cluster.api().kubectl("--namespace=kube-system", "logs", deployment, tail), end="")
    elif arguments.program in logs:
        lines = logs[arguments.program].read_text(errors="replace").splitlines()
        print("\n".join(lines[-arguments.lines :]))
    else:
        raise UsageError(f"no log of {arguments.program!r}: there are {', '.join([*logs, *NAMES])}")


def _kill(arguments: argparse.Namespace) -> None:
    Cluster().kill_program(arguments.program)


def _load_image(arguments: argparse.Namespace) -> None:
    images = Cluster().images()
    for wanted in arguments.image:
        print("\n".join(recipes.load(wanted, images)))


def _build_image(arguments: argparse.Namespace) -> None:
    wanted = arguments.image or recipes.names()
    print("\n".join(recipes.build_and_load(wanted, Cluster().images())))


def _node_stop(arguments: argparse.Namespace) -> None:
    Cluster().stop_node(arguments.name)


def _node_start(arguments: argparse.Namespace) -> None:
    Cluster().start_node(arguments.name)


def _node_cut(arguments: argparse.Namespace) -> None:
    Cluster().cut_node(arguments.name, arguments.others)


def _node_heal(arguments: argparse.Namespace) -> None:
    Cluster().heal_node(arguments.name)


def _node_fill(arguments: argparse.Namespace) -> None:
    Cluster().fill_node(arguments.name)


def _build(arguments: argparse.Namespace) -> None:
    for name, program in build.ensure(arguments.program or build.USUAL_TOOLS).items():
        print(f"{name} {program}")


def _api_up(arguments: argparse.Namespace) -> None:
    directory: Path = arguments.state_dir.absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise UsageError(f"{directory} belongs to somebody else: name another --state-dir")
    print(ApiServer(directory).start().kubeconfig)


def _api_down(arguments: argparse.Namespace) -> None:
    ApiServer(arguments.state_dir.absolute()).stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (1: it failed, and the last line says why)."""
    arguments = command_line().parse_args(argv)
    try:
        arguments.run(arguments)
    except DevclusterError as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"devcluster: {error}: run this with sudo", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("devcluster: interrupted", file=sys.stderr)
        return 130
    return 0

"""``python -m demo up | run | down | install | env``."""

from __future__ import annotations

import argparse
import sys

from demo import script
from demo.errors import DemoError
from demo.setup import Options


def main() -> int:
    """Run one command; the exit code is 0 when all that it promises was seen."""
    parser = argparse.ArgumentParser(
        prog="demo",
        description="A photo's labels from version 1 of a model and then from version 2, "
        "with no failed request. On the embedded Kubernetes, or on the cluster of KUBECONFIG.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "command",
        choices=("up", "run", "down", "install", "env"),
        help="all of it from nothing; only the main part, on what up has prepared; take it away; "
        "what up prepares, for a model of one's own; what a shell needs to work with that",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=20,
        help="requests/s by REST, and as many by gRPC (%(default)s)",
    )
    parser.add_argument(
        "--ingress",
        default="127.0.0.1:80",
        help="HOST:PORT of the ingress controller (%(default)s)",
    )
    parser.add_argument("--node", default="127.0.0.1", help="address on which NodePorts answer")
    parser.add_argument("--registry", help="where a cluster of KUBECONFIG pulls the images from")
    arguments = parser.parse_args()
    options = Options(
        rate=arguments.rate,
        ingress=arguments.ingress,
        node=arguments.node,
        registry=arguments.registry,
    )
    try:
        getattr(script, arguments.command)(options)
    except DemoError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line and the environment, read into one typed value."""

from __future__ import annotations

import re
import socket
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model_poller.cache.settings import CacheSettings
from model_poller.checks import marker
from model_poller.errors import InvalidSettingsError
from model_poller.fetch import FetchLimits
from model_poller.planner import LOAD_SECONDS, Policy
from model_poller.process import arguments as reading
from model_poller.process.arguments import Parser, shown
from model_poller.process.logs import LEVELS
from model_poller.stores import options
from model_poller.stores.uri import parse_uri
from model_poller.volume import assignment

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping, Sequence

    from model_poller.status import AssignmentStatus
    from model_poller.stores.opening import SourceSettings

MAX_PARALLELISM = 32
_MAX_VERSIONS = 1_000_000
_SUBSCRIPTION = r"projects/[^/\s]+/subscriptions/[^/\s]+"

_DESCRIPTION = """\
Brings model versions from a bucket to the disk of a TensorFlow Serving, and never lets a broken
or half-uploaded one be served.

Beside any TensorFlow Serving, SAVE_DIR is its model's base path (/models/NAME in its image):

  model_poller PROJECT SUBSCRIPTION SAVE_DIR --storage-uri=gs://BUCKET/FOLDER

PROJECT, SUBSCRIPTION and SAVE_DIR can also come from the environment variables PROJECT_ID,
SUBSCRIPTION and SAVE_DIR. Without --storage-uri the folders are learnt from notifications.
Google credentials are found as usual: GOOGLE_APPLICATION_CREDENTIALS, or the machine's identity.
"""

_EPILOG = """\
Credentials, by environment variables or by files of the same names in --credentials-dir:
  s3     AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; AWS_ROLE_ARN and
         AWS_WEB_IDENTITY_TOKEN_FILE; or the machine's identity
  az     AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_ACCOUNT_KEY;
         AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_FEDERATED_TOKEN_FILE; or the machine's identity
  https  HTTP_BEARER_TOKEN; or HTTP_USERNAME and HTTP_PASSWORD

Exit codes:
  0  told to end; with --once: the version is in the base path
  2  the command line, the environment or the volume asks for what can't be
 and with --once
  3  no version to publish by the timeout      5  the store did not answer by the timeout
  4  the store refuses, or has no such bucket  6  the version was still on its way then
  7  no version can be served as it is stored  8  the volume has no room for any
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set."""

    model: str
    base: Path
    """The model server's base path."""
    hidden: Path
    """Where the poller keeps what is not served; on the same mount as ``base``."""
    most_bytes: int | None
    """That all of it may take; None for the whole volume."""
    source: SourceSettings
    fetch: FetchLimits
    cache: CacheSettings | None
    complete_marker: str | None
    """A file whose presence makes a folder version complete."""
    require_manifest: bool
    manifest_public_key: str | None
    """Of minisign, as its base64 line."""
    warmup_requests: str | None
    """A storage URI of one file, or a path."""
    once: bool
    timeout: float | None
    """Seconds that ``once`` may take; None: as long as it takes."""
    poll_interval: float
    subscription: str | None
    pubsub_endpoint: str | None
    sqs_queue_url: str | None
    server_address: str
    server_rest_address: str
    server_config_dir: Path | None
    batching_parameters: str | None
    target_file: Path | None
    first_assignment: AssignmentStatus
    """What counts while the target's file is empty."""
    http_port: int
    log_format: str
    log_level: str
    policy: Policy


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read the command line; arguments win over environment variables.

    Raises:
        InvalidSettingsError: what was asked for can't be.
        SystemExit: the help was shown.
    """
    given = parser().parse_args(arguments)
    _check(given)
    project = given.project or environment.get("PROJECT_ID")
    subscription = given.subscription or environment.get("SUBSCRIPTION")
    save_dir = given.save_dir or environment.get("SAVE_DIR")
    if given.models_dir:
        if not given.model_name:
            raise InvalidSettingsError("--models-dir needs --model-name: versions go to DIR/NAME")
        hidden = Path(given.models_dir)
        base = hidden / given.model_name
    elif save_dir:
        base = hidden = Path(save_dir)
    else:
        raise InvalidSettingsError(
            "SAVE_DIR is missing: the model server's base path, /models/NAME"
        )
    base, hidden = base.absolute(), hidden.absolute()
    full = given.pubsub_subscription
    if not full and subscription and not given.models_dir:
        full = subscription
        if not full.startswith("projects/"):
            if not project:
                raise InvalidSettingsError(
                    f"PROJECT is missing for the subscription {subscription}"
                )
            full = f"projects/{project}/subscriptions/{subscription}"
    if full and not re.fullmatch(_SUBSCRIPTION, full):
        raise InvalidSettingsError(
            f"{shown(full)} is no subscription; write projects/PROJECT/subscriptions/NAME"
        )
    if not given.storage_uri and not full:
        raise InvalidSettingsError(
            "give --storage-uri, or a subscription that tells where versions are"
        )
    if given.once and not given.storage_uri:
        raise InvalidSettingsError("--once needs --storage-uri: nobody tells it where to look")
    model = given.model_name or base.name
    if not model or "/" in model or model.startswith(".") or not model.isprintable():
        raise InvalidSettingsError(
            f"{shown(model)} is no model's name; give --model-name=NAME without '/' and without a"
            " '.' in front, or a SAVE_DIR that ends so"
        )
    assigned = _first_assignment(environment)
    return Settings(
        model=model,
        base=base,
        hidden=hidden,
        most_bytes=given.models_max_size,
        source=_source(given, environment),
        fetch=FetchLimits(given.parallelism, given.max_bandwidth or None),
        cache=_cache(given, environment),
        complete_marker=given.complete_marker,
        require_manifest=given.require_manifest or given.manifest_public_key is not None,
        manifest_public_key=given.manifest_public_key,
        warmup_requests=given.warmup_requests,
        once=given.once,
        timeout=given.timeout,
        poll_interval=given.poll_interval,
        subscription=full,
        pubsub_endpoint=given.pubsub_endpoint or _emulator(environment),
        sqs_queue_url=given.sqs_queue_url,
        server_address=given.server_address,
        server_rest_address=given.server_rest_address,
        server_config_dir=Path(given.server_config_dir) if given.server_config_dir else None,
        batching_parameters=given.batching_parameters,
        target_file=Path(given.target_file) if given.target_file else None,
        first_assignment=assigned,
        http_port=given.http_port,
        log_format=given.log_format,
        log_level=given.log_level,
        policy=Policy(
            follow_newest=given.target_file is None and not assigned.target,
            num_versions=given.num_versions,
            retain_versions=given.retain_versions,
            load_timeout=given.load_timeout,
        ),
    )


def _check(given: Namespace) -> None:
    """Judge what the options say together.

    Raises:
        InvalidSettingsError
    """
    if given.retain_versions < given.num_versions:
        raise InvalidSettingsError(
            f"--num-versions={given.num_versions} are more than --retain-versions="
            f"{given.retain_versions}: give --retain-versions not less"
        )
    if given.models_dir and given.project:
        raise InvalidSettingsError(
            f"{shown(given.project)} and --models-dir={given.models_dir}: the older form tells"
            " where versions go by its SAVE_DIR; leave one of the two out"
        )
    if given.pubsub_subscription and given.subscription:
        raise InvalidSettingsError(
            f"{shown(given.subscription)} and --pubsub-subscription={given.pubsub_subscription}:"
            " a poller listens to one subscription; leave one of the two out"
        )
    if given.timeout is not None and not given.once:
        raise InvalidSettingsError(f"--timeout={given.timeout:g} is for --once; give both or none")
    if given.batching_parameters and not given.server_config_dir:
        raise InvalidSettingsError(
            f"--batching-parameters={shown(given.batching_parameters)} needs --server-config-dir:"
            " they are written into it"
        )
    if given.cache_max_size and not given.cache_dir:
        raise InvalidSettingsError(
            f"--cache-max-size={given.cache_max_size} needs --cache-dir: it is about that folder"
        )
    if given.models_max_size and not given.models_dir:
        raise InvalidSettingsError(
            f"--models-max-size={given.models_max_size} needs --models-dir: it is about that folder"
        )
    if given.source_dir and not (given.storage_uri or "").startswith("pvc://"):
        raise InvalidSettingsError(
            f"--source-dir={given.source_dir} is for --storage-uri=pvc://CLAIM/FOLDER"
        )
    if given.complete_marker and (fault := marker.fault(given.complete_marker)):
        raise InvalidSettingsError(f"--complete-marker={shown(given.complete_marker)} {fault}")


def _first_assignment(environment: Mapping[str, str]) -> AssignmentStatus:
    """What the environment assigns.

    Raises:
        InvalidSettingsError: a part of it can't be understood.
    """
    texts = assignment.from_environment(environment)
    if fault := assignment.fault(texts):
        name, value, form = fault
        raise InvalidSettingsError(f"{name}={shown(value)} is not {form}")
    return texts


def _emulator(environment: Mapping[str, str]) -> str | None:
    told = environment.get("PUBSUB_EMULATOR_HOST")
    try:
        return reading.address(told) if told else None
    except ArgumentTypeError as error:
        raise InvalidSettingsError(f"PUBSUB_EMULATOR_HOST: {error}") from None


def _cache(given: Namespace, environment: Mapping[str, str]) -> CacheSettings | None:
    if not given.cache_dir:
        return None
    return CacheSettings(
        Path(given.cache_dir).absolute(),
        given.cache_max_size,
        pod=environment.get("POD_NAME") or socket.gethostname(),
    )


def _source(given: Namespace, environment: Mapping[str, str]) -> SourceSettings:
    location = parse_uri(given.storage_uri) if given.storage_uri else None
    if location and location.scheme == "pvc" and not given.source_dir:
        raise InvalidSettingsError("pvc:// needs --source-dir: the folder where it is mounted")
    return options.source_settings(
        given, location, environment, mount=Path(given.source_dir) if given.source_dir else None
    )


def parser() -> Parser:
    """The options of ``model_poller``."""
    parser = Parser("model_poller", description=_DESCRIPTION, epilog=_EPILOG)
    seed = parser.add_argument_group("beside any TensorFlow Serving")
    seed.add_argument("project", nargs="?", metavar="PROJECT", help="Google Cloud project")
    seed.add_argument(
        "subscription", nargs="?", metavar="SUBSCRIPTION", help="Pub/Sub subscription in it"
    )
    seed.add_argument("save_dir", nargs="?", metavar="SAVE_DIR", help="the model's base path")

    source = parser.add_argument_group("source")
    source.add_argument(
        "--storage-uri",
        metavar="URI",
        help="the folder with the versions: gs://BUCKET/FOLDER, s3://BUCKET/FOLDER,"
        " az://CONTAINER/FOLDER, https://HOST/FOLDER/, file:///FOLDER, pvc://CLAIM/FOLDER",
    )
    options.add_options(source)
    source.add_argument(
        "--source-dir", metavar="DIR", help="pvc: where the claim is mounted, in both containers"
    )
    source.add_argument(
        "--poll-interval",
        type=reading.seconds,
        default=30.0,
        metavar="SECONDS",
        help="between two looks into the bucket (30)",
    )
    source.add_argument(
        "--pubsub-subscription",
        metavar="NAME",
        help="projects/P/subscriptions/S; its messages make the poller look at once",
    )
    source.add_argument(
        "--pubsub-endpoint",
        type=reading.address,
        metavar="HOST:PORT",
        help="a Pub/Sub emulator, in plain text (PUBSUB_EMULATOR_HOST)",
    )
    source.add_argument(
        "--sqs-queue-url",
        type=reading.url,
        metavar="URL",
        help="an SQS queue with the bucket's event notifications; they make the poller look at"
        " once",
    )

    fetch = parser.add_argument_group("fetching")
    fetch.add_argument(
        "--parallelism",
        type=reading.whole(1, MAX_PARALLELISM),
        metavar="N",
        help="ranges read at once (4, and more for small files)",
    )
    fetch.add_argument(
        "--max-bandwidth",
        type=reading.rate,
        default=0,
        metavar="BYTES",
        help="a second, over all ranges (0: no limit)",
    )
    fetch.add_argument(
        "--complete-marker",
        metavar="NAME",
        help="take a folder version once this file is in it, instead of once two looks show the"
        " same",
    )
    fetch.add_argument(
        "--require-manifest",
        action="store_true",
        help="take only versions with a SHA256SUMS, which is checked wherever there is one",
    )
    fetch.add_argument(
        "--manifest-public-key",
        metavar="KEY",
        help="of minisign: take only versions whose SHA256SUMS is signed with it",
    )
    fetch.add_argument(
        "--warmup-requests",
        metavar="URI|PATH",
        help="put this tf_serving_warmup_requests into assets.extra of versions that have none",
    )

    fetch.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="a folder that several pods share: what one of them has fetched is copied from there",
    )
    fetch.add_argument(
        "--cache-max-size",
        type=reading.whole(1, 2**60),
        metavar="BYTES",
        help="that versions may take in it; the least used ones leave (all of its disk)",
    )

    disk = parser.add_argument_group("versions")
    disk.add_argument(
        "--models-dir", metavar="DIR", help="instead of SAVE_DIR: the base path is DIR/NAME"
    )
    disk.add_argument(
        "--models-max-size",
        type=reading.whole(1, 2**60),
        metavar="BYTES",
        help="that may lie in --models-dir, where whoever made it ends what takes more (all of its"
        " disk)",
    )
    disk.add_argument("--model-name", metavar="NAME", help="default: the last part of SAVE_DIR")
    disk.add_argument(
        "--target-file",
        metavar="FILE",
        help="holds the version to serve; served-versions and quarantined-versions beside it hold"
        " what else is served and what failed on other pods, rollout what a rollout asks. While"
        " the first three are empty, TARGET_VERSION, SERVED_VERSIONS and QUARANTINED_VERSIONS of"
        " the environment count."
        " Without this option the newest complete version is served",
    )
    count = reading.whole(1, _MAX_VERSIONS)
    disk.add_argument(
        "--num-versions", type=count, default=1, metavar="N", help="served at once (1)"
    )
    disk.add_argument(
        "--retain-versions", type=count, default=2, metavar="N", help="kept on disk (2)"
    )

    server = parser.add_argument_group("model server")
    server.add_argument(
        "--server-address",
        type=reading.address,
        default="127.0.0.1:8500",
        metavar="HOST:PORT",
        help="of its gRPC (127.0.0.1:8500)",
    )
    server.add_argument(
        "--server-rest-address",
        type=reading.host_and_port,
        default="127.0.0.1:8501",
        metavar="HOST:PORT",
        help="of its REST API, where its metrics are read while a rollout asks for them"
        " (127.0.0.1:8501)",
    )
    server.add_argument(
        "--load-timeout",
        type=reading.seconds,
        default=LOAD_SECONDS,
        metavar="SECONDS",
        help="a version that is not AVAILABLE by then, while the model server is there, is taken"
        f" away ({LOAD_SECONDS:.0f})",
    )
    server.add_argument(
        "--server-config-dir",
        metavar="DIR",
        help="write models.config and monitoring.config for the model server into it",
    )
    server.add_argument(
        "--batching-parameters",
        metavar="TEXTPROTO",
        help="also write it into batching.config there",
    )

    own = parser.add_argument_group("the poller itself")
    own.add_argument(
        "--once", action="store_true", help="publish one version, then end (init containers, CI)"
    )
    own.add_argument(
        "--timeout", type=reading.seconds, metavar="SECONDS", help="of --once (as long as it takes)"
    )
    own.add_argument(
        "--http-port",
        type=reading.whole(0, reading.MAX_PORT),
        default=8502,
        metavar="PORT",
        help="(8502; 0: any that is free)",
    )
    own.add_argument("--log-format", choices=("json", "text"), default="text", help="(text)")
    own.add_argument("--log-level", choices=LEVELS, default="info", help="(info)")
    return parser

"""A kubeconfig of any kind, and a pod's service account, by Kubernetes' client.

To import it takes longer than all else that a command does.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import kubernetes.config
import yaml
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject

from inferencemodel_operator import kubeconfigs
from kubectl_inferencemodel.access import Access
from kubectl_inferencemodel.errors import ClusterError

_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_Headers = tuple[tuple[str, str], ...]
_NO_FILE: Final = (kubernetes.config.ConfigException, OSError)


def find(kubeconfig: Path | None, context: str | None) -> Access:
    """Read the kubeconfig, or in a pod without one, its service account.

    Raises:
        ClusterError: there is no usable one.
    """
    try:
        configuration, namespace, impersonation = _load(kubeconfig, context)
        server = str(configuration.host).rstrip("/")
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClusterError(
                f"no cluster: {server!r} is no URL; correct clusters[].cluster.server of the"
                " kubeconfig"
            )
        pool = RESTClientObject(configuration).pool_manager
        token = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    except ClusterError:
        raise
    except Exception as error:  # noqa: BLE001
        # The client takes a file's shape for granted, and providers of credentials raise anything.
        raise ClusterError(
            f"no cluster: the kubeconfig can't be used: {_words(error)}; name another with"
            " --kubeconfig or KUBECONFIG"
        ) from None
    # A token's file ends with a line break, as files do.
    token = None if token is None else token.rstrip()
    if token is not None and not token.isprintable():
        raise ClusterError("no cluster: the token of the kubeconfig holds a line break")
    return Access(server, namespace, token, pool, impersonation)


def _load(kubeconfig: Path | None, context: str | None) -> tuple[Any, str, _Headers]:
    configuration: Any = Configuration()
    if kubeconfig is not None and not kubeconfig.exists():
        raise FileNotFoundError(f"there is no file {kubeconfig}")
    complaints = _Complaints()
    logging.getLogger().addHandler(complaints)
    try:
        chosen = kubeconfigs.chosen(kubeconfig, context)
        if chosen.contents and chosen.name is None:
            raise kubernetes.config.ConfigException("it has no current-context; give a --context")
        kubernetes.config.load_kube_config(
            # Of several files, the client takes the context of the last one.
            *(chosen.files, chosen.name),
            client_configuration=configuration,
        )
        namespace, impersonation = chosen.context.get("namespace"), chosen.impersonation
    except _NO_FILE:
        if kubeconfig is not None or context is not None or not _POD_NAMESPACE.exists():
            raise
        kubernetes.config.load_incluster_config(client_configuration=configuration)
        return configuration, _POD_NAMESPACE.read_text().strip(), ()
    finally:
        logging.getLogger().removeHandler(complaints)
    if complaints.messages:
        # The client would go on as nobody.
        raise ClusterError(
            f"no credentials: {complaints.messages[0]}; see users[].user.exec of the kubeconfig"
        )
    return configuration, str(namespace or "default"), impersonation


class _Complaints(logging.Handler):
    """What the client logs instead of raising."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # On a terminal the program's own words go there, and the client stumbles over their want.
        is_silent = isinstance(sys.exc_info()[1], AttributeError)
        words = "the program has failed, and says why itself" if is_silent else record.getMessage()
        self.messages.append(words)


def _words(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "it is no text"
    if isinstance(error, ImportError):
        package = "PySocks" if error.name == "socks" else error.name
        return f"it takes the Python package {package}, which is not installed beside the plugin"
    if isinstance(error, yaml.YAMLError):
        return f"it is no YAML ({error})"
    if isinstance(error, (*_NO_FILE, ValueError)):
        return str(error) or type(error).__name__
    return f"its parts are not what they should be ({error})"

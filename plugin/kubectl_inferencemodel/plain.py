"""The plain kubeconfig: one file, an HTTPS server, a certificate or a token that stands in it.

Most are so, and what they say takes a few milliseconds to read, where Kubernetes' client takes a
quarter of a second to be imported. Whatever is not plain (a program or a provider that is to be
asked for credentials, a proxy, several files, any key that is not known here, any mistake) is
nobody's business here: the client reads it, and says what is wrong with it.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

import urllib3
import urllib3.connection
import yaml
from urllib3.util.ssl_ import create_urllib3_context

from inferencemodel_operator import kubeconfigs
from kubectl_inferencemodel.access import Access

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_CLUSTER: Final = frozenset(
    {"server", "certificate-authority", "certificate-authority-data", "extensions"}
)
_USER: Final = frozenset(
    {
        *("client-certificate", "client-certificate-data"),
        *("client-key", "client-key-data", "token"),
    }
)
_CONNECTIONS: Final = 20
"""So many are kept: the pollers of many pods are asked at once."""


class _NotPlainError(Exception):
    """The client has to read it."""


def find(kubeconfig: Path | None, context: str | None) -> Access | None:
    """What a plain kubeconfig says; None where it is not plain."""
    try:
        file = _file(kubeconfig)
        return _access(kubeconfigs.read(str(file)), context, file.parent)
    except (_NotPlainError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    except (yaml.YAMLError, RecursionError):
        return None


def contexts(kubeconfig: Path | None) -> list[str]:
    """The names of the contexts in one file, or in those of the environment."""
    found: dict[str, None] = {}
    for path in kubeconfigs.paths(kubeconfig):
        try:
            content = kubeconfigs.read(path)
            found |= dict.fromkeys(str(each["name"]) for each in content["contexts"])
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, RecursionError):
            continue
    return list(found)


def _file(kubeconfig: Path | None) -> Path:
    paths = kubeconfigs.paths(kubeconfig)
    if len(paths) != 1 or os.pathsep in paths[0] or getproxies().keys() - {"no"}:
        raise _NotPlainError
    return Path(paths[0]).expanduser().absolute()


def _access(content: Mapping[str, Any], context: str | None, folder: Path) -> Access:
    name = content["current-context"] if context is None else context
    used = _named(content["contexts"], name, "context")
    cluster = _named(content["clusters"], used["cluster"], "cluster")
    user = _named(content["users"], used["user"], "user")
    if cluster.keys() - _CLUSTER or user.keys() - _USER:
        raise _NotPlainError
    server = cluster["server"].rstrip("/")
    parts = urlsplit(server)
    if parts.scheme != "https" or not parts.hostname:
        raise _NotPlainError
    token = user.get("token")
    if token and not token.isprintable():
        raise _NotPlainError
    pool = _pool(_credentials(cluster, user, folder))
    namespace = str(used.get("namespace") or "default")
    return Access(server, namespace, f"Bearer {token}" if token else None, pool)


def _named(items: Iterable[Any], name: str, kind: str) -> dict[str, Any]:
    (found,) = (item[kind] for item in items if item["name"] == name)
    if not isinstance(name, str) or not isinstance(found, dict):
        raise _NotPlainError
    return found


def _pool(credentials: _Credentials) -> urllib3.PoolManager:
    """Connections of which each has a context of its own.

    urllib3 changes the context of a connection that it opens, and OpenSSL may read a shared one for
    another thread at that moment: Pythons that do not keep them apart crash
    (https://github.com/python/cpython/issues/134698).

    Raises:
        OSError, ValueError: the credentials are none.
    """
    credentials.context()

    class Connection(urllib3.connection.HTTPSConnection):
        def connect(self) -> None:
            self.ssl_context = credentials.context()
            super().connect()

    class Connections(urllib3.HTTPSConnectionPool):
        ConnectionCls = Connection

    made = urllib3.PoolManager(maxsize=_CONNECTIONS)
    made.pool_classes_by_scheme = {"https": Connections}
    return made


@dataclass(frozen=True, slots=True)
class _Credentials:
    """Who is believed, and what is shown to them; all in PEM."""

    authority: str | None
    """None for those that the machine believes."""
    certificate: bytes | None
    key: bytes | None
    """None where it stands in the certificate's file."""

    def context(self) -> ssl.SSLContext:
        """One that says so."""
        made = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
        if self.authority is None:
            made.load_default_certs()
        else:
            made.load_verify_locations(cadata=self.authority)
        if self.certificate is not None:
            _identify(made, self.certificate, self.key)
        return made


def _credentials(cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path) -> _Credentials:
    authority = _content(cluster, "certificate-authority", folder)
    return _Credentials(
        None if authority is None else authority.decode("ascii"),
        _content(user, "client-certificate", folder),
        _content(user, "client-key", folder),
    )


def _content(found: Mapping[str, Any], name: str, folder: Path) -> bytes | None:
    """What is in a file, or stands beside its name in base64; None for neither."""
    data, file = found.get(f"{name}-data"), found.get(name)
    if data:
        return base64.standard_b64decode(data)
    return (folder / file).read_bytes() if file else None


def _identify(context: ssl.SSLContext, certificate: bytes, key: bytes | None) -> None:
    """Have a context show a certificate; OpenSSL reads that from files alone."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        parts = [_secret(place / "certificate", certificate)]
        if key is not None:
            parts.append(_secret(place / "key", key))
        # A key that takes a password is an error; without one here, it would be asked for.
        context.load_cert_chain(parts[0], parts[-1], password="")


def _secret(file: Path, content: bytes) -> Path:
    file.touch(mode=0o600)
    file.write_bytes(content)
    return file

"""The certificates of a cluster, made once by openssl and kept with its state."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devcluster.errors import PreconditionError, StartError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: How long certificates are valid, in days: longer than any development cluster lives.
VALID_DAYS = 3650
CLUSTER_CA = "ca"
FRONT_PROXY_CA = "front-proxy-ca"


@dataclass(frozen=True)
class Certificate:
    """What a certificate says; Kubernetes takes the name for the user and groups for groups."""

    file: str
    name: str
    group: str = ""
    names: tuple[str, ...] = ()
    """Subject alternative names as openssl writes them, such as ``IP:127.0.0.1``."""
    authority: str = CLUSTER_CA

    def configuration(self) -> str:
        """The certificate as openssl's configuration file."""
        subject = [f"CN = {self.name}", *([f"O = {self.group}"] if self.group else [])]
        names = [f"subjectAltName = {','.join(self.names)}"] if self.names else []
        return "\n".join(
            [
                "[req]",
                "prompt = no",
                "distinguished_name = subject",
                "x509_extensions = extensions",
                "[subject]",
                *subject,
                "[extensions]",
                "basicConstraints = critical, CA:FALSE",
                "keyUsage = critical, digitalSignature, keyEncipherment",
                "extendedKeyUsage = clientAuth, serverAuth",
                *names,
                "",
            ]
        )


def _authority(name: str) -> str:
    return "\n".join(
        [
            "[req]",
            "prompt = no",
            "distinguished_name = subject",
            "x509_extensions = extensions",
            "[subject]",
            f"CN = inferencemodel-devcluster-{name}",
            "[extensions]",
            "basicConstraints = critical, CA:TRUE",
            "keyUsage = critical, digitalSignature, keyCertSign, cRLSign",
            "subjectKeyIdentifier = hash",
            "",
        ]
    )


class Certificates:
    """A directory of certificates and keys: ``NAME.crt`` and ``NAME.key``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def crt(self, name: str) -> Path:
        """A certificate's file."""
        return self.directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        """A private key's file."""
        return self.directory / f"{name}.key"

    @property
    def service_accounts(self) -> Path:
        """The key that signs the tokens of service accounts."""
        return self.directory / "service-accounts.key"

    def ensure(self, *wanted: Certificate) -> None:
        """Make what is missing or says something else than wanted.

        Raises:
            PreconditionError: openssl is missing.
            StartError: openssl fails.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for authority in sorted({CLUSTER_CA, *(each.authority for each in wanted)}):
            self._make(authority, _authority(authority), ())
        if not self.service_accounts.exists():
            # In the one format of a private key that the API server reads a public key from.
            _openssl(
                *("ecparam", "-genkey", "-name", "prime256v1", "-noout"),
                *("-out", str(self.service_accounts)),
            )
        for each in wanted:
            signer = (
                *("-CA", str(self.crt(each.authority))),
                *("-CAkey", str(self.key(each.authority))),
            )
            self._make(each.file, each.configuration(), signer)

    def _make(self, name: str, configuration: str, signer: tuple[str, ...]) -> None:
        written = self.directory / f"{name}.cnf"
        made = self.crt(name).exists() and written.exists()
        if made and written.read_text() == configuration:
            return
        unfinished = written.with_suffix(".new")
        unfinished.write_text(configuration)
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", str(VALID_DAYS), "-config", str(unfinished), *signer),
            *("-keyout", str(self.key(name)), "-out", str(self.crt(name))),
        )
        unfinished.replace(written)

    def kubeconfig(self, user: str, server: str) -> str:
        """A kubeconfig, in JSON, for the owner of a client certificate."""
        return json.dumps(
            _kubeconfig(
                server,
                {
                    "client-certificate-data": _encoded(self.crt(user)),
                    "client-key-data": _encoded(self.key(user)),
                },
                _encoded(self.crt(CLUSTER_CA)),
            ),
            indent=1,
        )


def _kubeconfig(server: str, user: Mapping[str, str], authority: str) -> dict[str, object]:
    name = "devcluster"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority-data": authority}}
        ],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _openssl(*arguments: str) -> None:
    try:
        made = subprocess.run(
            ["openssl", *arguments], capture_output=True, text=True, check=False, timeout=60
        )
    except FileNotFoundError:
        raise PreconditionError(
            "openssl is missing: install it (Debian: apt-get install openssl)"
        ) from None
    if made.returncode != 0:
        raise StartError(f"openssl {' '.join(arguments)}: {made.stderr.strip()}")

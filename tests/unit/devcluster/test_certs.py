"""Certificates say who one is, and are made again only when that changes."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
from typing import TYPE_CHECKING

from devcluster.certs import FRONT_PROXY_CA, Certificate, Certificates

if TYPE_CHECKING:
    from pathlib import Path

SERVER = Certificate("server", "server", group="people", names=("DNS:localhost", "IP:127.0.0.1"))


def described(path: Path) -> str:
    return subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-in", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_a_certificate_names_user_group_and_addresses(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "pki")
    certificates.ensure(SERVER)
    text = described(certificates.crt("server"))
    assert "CN = server, O = people" in text
    assert "DNS:localhost, IP Address:127.0.0.1" in text
    assert "CA:FALSE" in text
    context = ssl.create_default_context(cafile=str(certificates.crt("ca")))
    context.load_cert_chain(certificates.crt("server"), certificates.key("server"))


def test_certificates_are_made_once(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    certificates.ensure(SERVER)
    before = certificates.crt("server").read_bytes(), certificates.service_accounts.read_bytes()
    certificates.ensure(SERVER)
    after = certificates.crt("server").read_bytes(), certificates.service_accounts.read_bytes()
    assert after == before


def test_a_certificate_with_other_names_is_made_again_by_the_same_authority(
    tmp_path: Path,
) -> None:
    certificates = Certificates(tmp_path)
    certificates.ensure(SERVER)
    authority = certificates.crt("ca").read_bytes()
    certificates.ensure(Certificate("server", "server", names=("IP:10.0.0.1",)))
    assert "IP Address:10.0.0.1" in described(certificates.crt("server"))
    assert certificates.crt("ca").read_bytes() == authority


def test_another_authority_signs_what_asks_for_it(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    certificates.ensure(Certificate("proxy", "proxy", authority=FRONT_PROXY_CA))
    assert f"Issuer: CN = inferencemodel-devcluster-{FRONT_PROXY_CA}" in described(
        certificates.crt("proxy")
    )


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "pki")
    certificates.ensure(SERVER)
    assert certificates.directory.stat().st_mode & 0o077 == 0


def test_a_kubeconfig_carries_all_that_a_client_needs(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    certificates.ensure(SERVER)
    kubeconfig = json.loads(certificates.kubeconfig("server", "https://127.0.0.1:6443"))
    assert kubeconfig["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    encoded = kubeconfig["users"][0]["user"]["client-certificate-data"]
    assert base64.b64decode(encoded) == certificates.crt("server").read_bytes()

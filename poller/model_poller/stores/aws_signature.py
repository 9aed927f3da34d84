"""AWS Signature Version 4: the proof on each request of who asks.

What one key signs with differs from day to day, so it is made once a day, and a request costs one
hash and one HMAC. AWS' own library (awscrt) hands every request to a thread of its own, which takes
longer; it makes the signatures for all regions at once (version 4a), which few ask for.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALGORITHM = "AWS4-HMAC-SHA256"
_EVERYWHERE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Keys:
    """What signs requests for a while."""

    access_key_id: str
    secret: str = field(repr=False)
    token: str | None = field(repr=False)
    principal: str
    """Whose they are, for messages."""
    expires: float = math.inf
    """Unix time."""


class Signer:
    """Signs for one service in one region."""

    def __init__(self, keys: Keys, region: str, service: str) -> None:
        self._keys = keys
        self._region = region
        self._service = service
        # S3 alone takes paths as they are, and wants to be told of the body.
        self._is_s3 = service == "s3"
        self._kept: tuple[str, bytes] = ("", b"")

    def signed(
        self,
        method: str,
        host: str,
        target: str,
        headers: Mapping[str, str],
        payload: str,
        seconds: float | None = None,
    ) -> dict[str, str]:
        """The headers and what proves who asks; all are signed.

        ``payload`` is the SHA-256 of the body, or what stands for one; ``seconds`` the Unix time.
        """
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
        signed = {**headers}
        if self._keys.token is not None:
            signed["X-Amz-Security-Token"] = self._keys.token
        signed["X-Amz-Date"] = moment
        if self._is_s3:
            signed["x-amz-content-sha256"] = payload
        told = sorted([("host", host), *((name.lower(), signed[name]) for name in signed)])
        names = ";".join([name for name, _ in told])
        path, _, query = target.partition("?")
        canonical = "\n".join(
            [
                method,
                path if self._is_s3 else quote(path, safe="/~"),
                _sorted(query) if query else "",
                *[f"{name}:{_trimmed(value)}" for name, value in told],
                "",
                names,
                payload,
            ]
        )
        scope = f"{moment[:8]}/{self._region}/{self._service}/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"{_ALGORITHM}\n{moment}\n{scope}\n{digest}"
        signature = hmac.digest(self._key(moment[:8]), text.encode(), "sha256").hex()
        signed["Authorization"] = (
            f"{_ALGORITHM} Credential={self._keys.access_key_id}/{scope},"
            f" SignedHeaders={names}, Signature={signature}"
        )
        return signed

    def _key(self, day: str) -> bytes:
        kept_day, key = self._kept
        if kept_day != day:
            key = f"AWS4{self._keys.secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            # In one go: whoever reads it meanwhile gets a day and its own key.
            self._kept = day, key
        return key


def sign_everywhere(
    keys: Keys,
    service: str,
    method: str,
    host: str,
    target: str,
    headers: Mapping[str, str],
    payload: str,
) -> dict[str, str]:
    """As `Signer.signed`, for all regions at once."""
    from awscrt import auth, http

    request = http.HttpRequest(method, target, http.HttpHeaders([("host", host), *headers.items()]))
    is_s3 = service == "s3"
    header = auth.AwsSignedBodyHeaderType
    config = auth.AwsSigningConfig(
        algorithm=auth.AwsSigningAlgorithm.V4_ASYMMETRIC,
        signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
        credentials_provider=auth.AwsCredentialsProvider.new_static(
            keys.access_key_id, keys.secret, keys.token
        ),
        region="*",
        service=service,
        use_double_uri_encode=not is_s3,
        should_normalize_uri_path=not is_s3,
        signed_body_value=payload,
        signed_body_header_type=header.X_AMZ_CONTENT_SHA_256 if is_s3 else header.NONE,
    )
    auth.aws_sign_request(request, config).result(_EVERYWHERE_SECONDS)
    return {name: value for name, value in request.headers if name.lower() != "host"}


def _sorted(query: str) -> str:
    """The pairs of a query in their order; one without ``=`` has an empty value."""
    pairs = [pair if "=" in pair else f"{pair}=" for pair in query.split("&")]
    return "&".join(sorted(pairs, key=lambda pair: pair.split("=", 1)))


def _trimmed(value: str) -> str:
    """A header's value as it is signed: without what is blank around it, and one blank in it."""
    if "  " not in value and "\t" not in value and value == value.strip():
        return value
    return " ".join(value.split())

"""AWS Signature Version 4: the proof on each request of who asks.

What one key signs with differs from day to day, so it is made once a day, and a request costs three
short hashes. AWS' own library (awscrt) hands every request to a thread of its own, which takes
longer; it makes the signatures for all regions at once (version 4a), which few ask for.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALGORITHM = "AWS4-HMAC-SHA256"
_EVERYWHERE_SECONDS = 5.0
_BLOCK_BYTES = 64
"""Of SHA-256."""
_MAX_ORDERS = 32


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


class _Moment(NamedTuple):
    seconds: int
    """Unix time."""
    told: str


class _Day(NamedTuple):
    """What a key signs with on one day."""

    day: str
    scope: str
    inner: hashlib._Hash
    outer: hashlib._Hash
    """See `_halves`."""


class _Order(NamedTuple):
    """How headers of the same names are signed."""

    names: str
    lines: tuple[tuple[str, str], ...]
    """Each one's name, empty for the host's, and what its line begins with."""


class Signer:
    """Signs for one service in one region."""

    def __init__(self, keys: Keys, region: str, service: str) -> None:
        self._keys = keys
        self._region = region
        self._service = service
        # S3 alone takes paths as they are, and wants to be told of the body.
        self._is_s3 = service == "s3"
        self._day = _Day("", "", hashlib.sha256(), hashlib.sha256())
        self._moment = _Moment(0, "")
        self._orders: dict[tuple[str, ...], _Order] = {}

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
        moment = self._told(int(time.time() if seconds is None else seconds))
        day = self._today(moment[:8])
        signed = {**headers}
        if self._keys.token is not None:
            signed["X-Amz-Security-Token"] = self._keys.token
        signed["X-Amz-Date"] = moment
        if self._is_s3:
            signed["x-amz-content-sha256"] = payload
        order = self._order(signed)
        path, _, query = target.partition("?")
        lines = [
            method,
            path if self._is_s3 else quote(path, safe="/~"),
            _sorted(query) if query else "",
        ]
        for name, begin in order.lines:
            lines.append(begin + _trimmed(signed[name] if name else host))
        lines += ("", order.names, payload)
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        inner, outer = day.inner.copy(), day.outer.copy()
        inner.update(f"{_ALGORITHM}\n{moment}\n{day.scope}\n{digest}".encode())
        outer.update(inner.digest())
        signed["Authorization"] = (
            f"{_ALGORITHM} Credential={self._keys.access_key_id}/{day.scope},"
            f" SignedHeaders={order.names}, Signature={outer.hexdigest()}"
        )
        return signed

    # What is kept is replaced in one go: whoever reads it meanwhile gets what belongs together.

    def _told(self, seconds: int) -> str:
        kept = self._moment
        if kept.seconds != seconds:
            told = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
            kept = self._moment = _Moment(seconds, told)
        return kept.told

    def _today(self, day: str) -> _Day:
        kept = self._day
        if kept.day != day:
            key = f"AWS4{self._keys.secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            scope = f"{day}/{self._region}/{self._service}/aws4_request"
            kept = self._day = _Day(day, scope, *_halves(key))
        return kept

    def _order(self, headers: Mapping[str, str]) -> _Order:
        given = tuple(headers)
        kept = self._orders.get(given)
        if kept is None:
            found = sorted([("host", ""), *((name.lower(), name) for name in given)])
            lines = tuple((name, f"{lower}:") for lower, name in found)
            kept = _Order(";".join([lower for lower, _ in found]), lines)
            # Who asks has few kinds of requests.
            if len(self._orders) < _MAX_ORDERS:
                self._orders[given] = kept
        return kept


def _halves(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The two hashes of an HMAC, as far as they depend on the key (RFC 2104 section 4).

    The key is no longer than the hash's block.
    """
    padded = key.ljust(_BLOCK_BYTES, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
    return inner, hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))


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

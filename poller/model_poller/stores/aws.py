"""Who asks AWS, and the proof of it on every request.

One chain of credentials for S3 and SQS: keys, a web identity token (IRSA), a container's identity
(EKS Pod Identity, ECS), an instance's identity. The chain in AWS' own library (awscrt) reads the
environment of the process alone, so that a mounted Secret could not feed it, hides why STS refused,
and costs threads; obstore can sign for S3 alone and tells no checksum. So the four exchanges of
tokens, one request each, are made here.

Sources: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html,
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from model_poller.errors import AccessDeniedError, UnreachableError
from model_poller.stores.aws_signature import Keys, Signer, sign_everywhere
from model_poller.stores.http_calls import Answer, HttpCalls
from model_poller.stores.renewal import Renewed
from model_poller.stores.xml_answers import parse_xml, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_poller.stores.credentials import Credentials

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
_READ_SECONDS = 1.0
"""So long keys of the environment, or of a mounted Secret, are taken as they were read: to read a
Secret's three files takes five times as long as to sign, for each of thousands of objects."""
_METADATA_TIMEOUT_SECONDS = 2.0
"""Machines without one swallow what is sent to its address."""


class AwsIdentity:
    """Finds keys, renews them before they expire, and signs with them."""

    def __init__(
        self,
        credentials: Credentials,
        region: str | None,
        *,
        anonymous: bool,
        everywhere: bool = False,
    ) -> None:
        """``everywhere`` signs for all regions at once, as access points of many regions ask for
        (https://docs.aws.amazon.com/AmazonS3/latest/userguide/MultiRegionAccessPointRequests.html).
        """
        self._credentials = credentials
        self._anonymous = anonymous
        self._everywhere = everywhere
        self.region = (
            region
            or credentials.get("AWS_REGION")
            or credentials.get("AWS_DEFAULT_REGION")
            or "us-east-1"
        )
        self._found = Renewed(self._find)
        self._read: tuple[float, Keys] | None = None
        """When keys were read, by the monotonic clock, and what they were."""
        self._signer: tuple[tuple[Keys, str, str], Signer] | None = None

    @property
    def principal(self) -> str:
        """Who asks, as far as is known without asking."""
        if self._anonymous:
            return "an anonymous caller"
        if key := self._credentials.get("AWS_ACCESS_KEY_ID"):
            return f"the access key {key}"
        return self._found.kept.principal if self._found.kept else "the caller"

    def forget(self) -> None:
        """Get new keys for the next request: the present ones were refused."""
        self._read = None
        self._found.forget()

    def sign(
        self,
        service: str,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        payload: bytes | str = b"",
    ) -> dict[str, str]:
        """The headers, with what proves who asks; ``payload`` can be UNSIGNED_PAYLOAD.

        Raises:
            AccessDeniedError: there are no keys, or what they would be made from is refused.
            UnreachableError: who hands them out does not answer.
        """
        if self._anonymous:
            return dict(headers)
        keys = self.keys()
        # Of what is percent-encoded already, no more is to be known.
        host, slash, rest = url.partition("://")[2].partition("/")
        target = slash + rest
        told = payload if isinstance(payload, str) else hashlib.sha256(payload).hexdigest()
        if self._everywhere:
            return sign_everywhere(keys, service, method, host, target, headers, told)
        wanted, kept = (keys, self.region, service), self._signer
        if kept is None or kept[0] != wanted:
            kept = self._signer = wanted, Signer(*wanted)
        return kept[1].signed(method, host, target, headers, told)

    def keys(self) -> Keys:
        """What to sign with now.

        Raises:
            AccessDeniedError, UnreachableError
        """
        now, read = time.monotonic(), self._read
        if read and now - read[0] < _READ_SECONDS:
            return read[1]
        key, secret, token = self._credentials.together(
            "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
        )
        if key and secret:
            keys = Keys(key, secret, token, f"the access key {key}")
            if read and read[1] == keys:
                # The same one, whose signer is at hand.
                keys = read[1]
            self._read = now, keys
            return keys
        return self._found.get()

    def _find(self) -> Keys:
        get = self._credentials.get
        if (file := get("AWS_WEB_IDENTITY_TOKEN_FILE")) and (role := get("AWS_ROLE_ARN")):
            return self._assume(role, Path(file))
        if path := get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
            return self._of_container(f"http://169.254.170.2{path}")
        if url := get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
            return self._of_container(url)
        if (get("AWS_EC2_METADATA_DISABLED") or "").lower() != "true":
            return self._of_instance()
        raise _no_credentials()

    def _assume(self, role: str, file: Path) -> Keys:
        try:
            token = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AccessDeniedError(
                f"the web identity token for {role} can't be read ({error}); mount the service"
                " account's token, or correct AWS_WEB_IDENTITY_TOKEN_FILE"
            ) from error
        name = self._credentials.get("AWS_ROLE_SESSION_NAME") or "model-poller"
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": name,
            "WebIdentityToken": token,
        }
        host = f"https://sts.{self.region}.{domain(self.region)}"
        answer = _ask(
            "POST",
            self._credentials.get("AWS_ENDPOINT_URL_STS") or host,
            {"Content-Type": "application/x-www-form-urlencoded"},
            urlencode(form).encode(),
        )
        told = parse_xml(answer.body)
        if answer.status != 200 or told is None or not text(told, "Expiration"):
            raise AccessDeniedError(
                f"{role} can't be assumed with the token in {file}: {_reason(answer)}; the role's"
                " trust policy has to allow sts:AssumeRoleWithWebIdentity to this service account"
            )
        try:
            expires = _unix(text(told, "Expiration"))
        except (ValueError, OverflowError):
            raise AccessDeniedError(
                f"{role} has no keys: what was answered is not in the documented form"
            ) from None
        return Keys(
            text(told, "AccessKeyId"),
            text(told, "SecretAccessKey"),
            text(told, "SessionToken"),
            text(told, "AssumedRoleUser/Arn") or role,
            expires,
        )

    def _of_container(self, url: str) -> Keys:
        get = self._credentials.get
        token = get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        if file := get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
            try:
                token = Path(file).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise AccessDeniedError(
                    f"the token for the container's identity can't be read ({error})"
                ) from error
        answer = _ask("GET", url, {"Authorization": token} if token else {})
        if answer.status != 200:
            raise AccessDeniedError(
                f"the container's identity is refused: {_reason(answer)}; associate a role with"
                " the service account"
            )
        return _from_json(answer, "the container's role")

    def _of_instance(self) -> Keys:
        base = self._credentials.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
        base = (base or "http://169.254.169.254").rstrip("/")
        calls = HttpCalls(base, _METADATA_TIMEOUT_SECONDS)
        path = f"{urlsplit(base).path}/latest"
        folder = f"{path}/meta-data/iam/security-credentials/"
        try:
            try:
                ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
                session = calls.send("PUT", f"{path}/api/token", ttl)
            except UnreachableError as error:
                if self._found.kept:
                    raise
                raise _no_credentials() from error
            # Whoever answers is there, and may be busy: it has all pods of its machine to answer.
            proof = {"X-aws-ec2-metadata-token": _body(session, base)}
            role = _body(calls.send("GET", folder, proof), base).partition("\n")[0]
            answer = calls.send("GET", folder + role, proof)
            _check_busy(answer, base)
        finally:
            calls.close()
        return _from_json(answer, f"the instance's role {role}")


def told_principal(message: str) -> str | None:
    """Who was refused, in the words of an AWS service."""
    told = re.search(r"arn:aws[\w-]*:(?:iam|sts)::\d*:[\w+=,.@/-]+(?= is not authorized)", message)
    return told[0] if told else None


def told_permission(message: str) -> str | None:
    """What was refused, in the words of an AWS service."""
    told = re.search(r"not authorized to perform:? ([a-z0-9-]+:\w+)", message)
    return told[1] if told else None


def domain(region: str) -> str:
    """Below which a region's services are."""
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"


def _ask(method: str, url: str, headers: dict[str, str], body: bytes = b"") -> Answer:
    parts = urlsplit(url)
    calls = HttpCalls(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        answer = calls.ask(method, lambda: (target, headers), body)
    finally:
        calls.close()
    _check_busy(answer, url)
    return answer


def _check_busy(answer: Answer, url: str) -> None:
    if answer.is_busy:
        host = urlsplit(url).hostname
        raise UnreachableError(f"{host} answered {answer.status}: {_reason(answer)}")


def _body(answer: Answer, url: str) -> str:
    _check_busy(answer, url)
    if answer.status != 200:
        raise _no_credentials()
    return answer.body.decode(errors="replace").strip()


def _from_json(answer: Answer, principal: str) -> Keys:
    try:
        told: dict[str, Any] = json.loads(answer.body)
        return Keys(
            told["AccessKeyId"],
            told["SecretAccessKey"],
            told["Token"],
            told.get("RoleArn") or principal,
            _unix(told["Expiration"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        # From None: what could not be read may hold a secret.
        raise AccessDeniedError(
            f"{principal} has no keys: what was answered is not in the documented form"
        ) from None


def _reason(answer: Answer) -> str:
    told = parse_xml(answer.body)
    if told is not None and (code := text(told, "Code")):
        return f"{code}: {text(told, 'Message')}"
    return f"status {answer.status}"


def _unix(moment: str) -> float:
    told = datetime.fromisoformat(moment)
    # Without a zone it is meant as all the others are, wherever this process runs.
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()


def _no_credentials() -> AccessDeniedError:
    return AccessDeniedError(
        "no AWS credentials found; give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run with a"
        " service account or an instance that has a role, or ask with --anonymous for a public"
        " bucket"
    )

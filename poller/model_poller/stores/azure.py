"""Who asks Azure, and the proof of it on every request.

Each kind of proof is one header or one query, made here: Azure's own client library would bring
seven more packages, and obstore signs no listing and tells no checksum.

Sources: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key,
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow,
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from model_poller.errors import AccessDeniedError, InvalidSettingsError, UnreachableError
from model_poller.stores.http_calls import Answer, HttpCalls
from model_poller.stores.renewal import Renewed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_poller.stores.credentials import Credentials

API_VERSION = "2021-12-02"
_RESOURCE = "https://storage.azure.com/"
_AUTHORITY = "https://login.microsoftonline.com"
_METADATA_TIMEOUT_SECONDS = 2.0
"""Machines without one swallow what is sent to its address."""
_SIGNED_HEADERS = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    expires: float


class AzureIdentity:
    """Finds what proves who asks, and renews it before it expires."""

    def __init__(self, credentials: Credentials, account: str | None, *, anonymous: bool) -> None:
        self._credentials = credentials
        self._account = account
        self._anonymous = anonymous
        self._found = Renewed(self._find)

    @property
    def account(self) -> str | None:
        """The storage account, where somebody named it."""
        get = self._credentials.get
        told = self._account or self._connection().get("AccountName")
        return told or get("AZURE_STORAGE_ACCOUNT_NAME")

    @property
    def endpoint(self) -> str:
        """Where the account's blobs are, without a slash at the end.

        Raises:
            InvalidSettingsError: no account is named.
        """
        connection = self._connection()
        if told := connection.get("BlobEndpoint"):
            return told.rstrip("/")
        if not (account := self.account):
            raise InvalidSettingsError(
                "az:// needs --azure-account, AZURE_STORAGE_ACCOUNT_NAME or a connection string"
            )
        suffix = connection.get("EndpointSuffix", "core.windows.net")
        return f"{connection.get('DefaultEndpointsProtocol', 'https')}://{account}.blob.{suffix}"

    @property
    def principal(self) -> str:
        """Who asks, as far as is known without asking."""
        get = self._credentials.get
        if self._anonymous:
            return "an anonymous caller"
        if self._sas():
            return "the shared access signature"
        if self._key():
            return f"the key of the account {self.account}"
        if client := get("AZURE_CLIENT_ID"):
            return f"the client {client}"
        return "the machine's identity"

    def forget(self) -> None:
        """Get a new token for the next request: the present one was refused."""
        self._found.forget()

    def prove(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> tuple[str, dict[str, str]]:
        """The URL's path and query, and the headers, with what proves who asks.

        Raises:
            AccessDeniedError: there is no proof, or what it would be made from is refused.
            UnreachableError: who hands it out does not answer.
        """
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        # Azure takes dates in RFC 1123 form only.
        proven = {**headers, "x-ms-version": API_VERSION, "x-ms-date": formatdate(usegmt=True)}
        if self._anonymous:
            return target, proven
        if sas := self._sas():
            return f"{target}{'&' if parts.query else '?'}{sas}", proven
        if key := self._key():
            proven["Authorization"] = self._shared_key(key, method, url, proven)
        else:
            proven["Authorization"] = f"Bearer {self._found.get().value}"
        return target, proven

    def _connection(self) -> dict[str, str]:
        told = self._credentials.get("AZURE_STORAGE_CONNECTION_STRING") or ""
        pairs = (piece.partition("=") for piece in told.split(";"))
        return {name.strip(): value.strip() for name, _, value in pairs if value}

    def _sas(self) -> str:
        connection = self._connection()
        told = connection.get("SharedAccessSignature")
        if not told and "AccountKey" not in connection:
            told = self._credentials.get("AZURE_STORAGE_SAS_TOKEN")
        # White space in a URL would be refused with the whole of it in the message.
        return "".join((told or "").split()).lstrip("?")

    def _key(self) -> str | None:
        told = self._connection().get("AccountKey")
        return told or self._credentials.get("AZURE_STORAGE_ACCOUNT_KEY")

    def _shared_key(self, key: str, method: str, url: str, headers: Mapping[str, str]) -> str:
        parts = urlsplit(url)
        given = {name.lower(): value for name, value in headers.items()}
        if given.get("content-length") == "0":
            del given["content-length"]
        account = self.account or ""
        ours = sorted(name for name in given if name.startswith("x-ms-"))
        lines = [
            method,
            *(given.get(name, "") for name in _SIGNED_HEADERS),
            *(f"{name}:{given[name]}" for name in ours),
            f"/{account}{parts.path}",
            *(f"{name}:{value}" for name, value in sorted(parse_qsl(parts.query, True))),
        ]
        try:
            secret = base64.b64decode(key, validate=True)
        except binascii.Error:
            raise AccessDeniedError(
                f"the key of the account {account} is not in base64; copy it anew"
            ) from None
        digest = hmac.digest(secret, "\n".join(lines).encode(), hashlib.sha256)
        return f"SharedKey {account}:{base64.b64encode(digest).decode()}"

    def _find(self) -> _Token:
        get = self._credentials.get
        client, tenant = get("AZURE_CLIENT_ID"), get("AZURE_TENANT_ID")
        if client and tenant and (file := get("AZURE_FEDERATED_TOKEN_FILE")):
            return self._of_workload(client, tenant, Path(file))
        return self._of_machine(client)

    def _of_workload(self, client: str, tenant: str, file: Path) -> _Token:
        try:
            assertion = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AccessDeniedError(
                f"the federated token of the client {client} can't be read ({error}); label the"
                " pod azure.workload.identity/use, or correct AZURE_FEDERATED_TOKEN_FILE"
            ) from error
        form = {
            "client_assertion": assertion,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_id": client,
            "grant_type": "client_credentials",
            "scope": f"{_RESOURCE}.default",
        }
        authority = azure_authority(self._credentials.get("AZURE_AUTHORITY_HOST") or _AUTHORITY)
        calls = HttpCalls(authority)
        try:
            answer = calls.ask(
                "POST",
                lambda: (
                    f"{urlsplit(authority).path}/{quote(tenant, safe='')}/oauth2/v2.0/token",
                    {"Content-Type": "application/x-www-form-urlencoded"},
                ),
                urlencode(form).encode(),
            )
        finally:
            calls.close()
        return _from_json(
            answer,
            f"the client {client} of the tenant {tenant}",
            "add a federated credential for this service account to it",
        )

    def _of_machine(self, client: str | None) -> _Token:
        base = self._credentials.get("AZURE_POD_IDENTITY_AUTHORITY_HOST")
        base = (base or "http://169.254.169.254").rstrip("/")
        query = {"api-version": "2018-02-01", "resource": _RESOURCE}
        if client:
            query["client_id"] = client
        calls = HttpCalls(base, _METADATA_TIMEOUT_SECONDS)
        try:
            answer = calls.send(
                "GET",
                f"{urlsplit(base).path}/metadata/identity/oauth2/token?{urlencode(query)}",
                {"Metadata": "true"},
            )
        except UnreachableError as error:
            if self._found.kept:
                raise
            raise AccessDeniedError(
                "no Azure credentials found; give AZURE_STORAGE_CONNECTION_STRING,"
                " AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_ACCOUNT_KEY, run with a service account"
                " or a machine that has an identity, or ask with --anonymous for a public container"
            ) from error
        finally:
            calls.close()
        return _from_json(answer, self.principal, "assign the identity to this machine")


def azure_authority(host: str) -> str:
    """The URL of who hands out tokens; Azure's own libraries take a host alone as well."""
    return (host if "://" in host else f"https://{host}").rstrip("/")


def _from_json(answer: Answer, principal: str, advice: str) -> _Token:
    # 410 is a machine's identity service while it is updated.
    if answer.is_busy or answer.status == 410:
        raise UnreachableError(f"a token for {principal} was answered {answer.status}")
    try:
        told = json.loads(answer.body)
        if answer.status == 200:
            life = float(told["expires_in"])
            if not math.isfinite(life):
                raise ValueError
            return _Token(told["access_token"], time.time() + life)
        # The first line: what follows are numbers for support.
        reason = f"{told['error']}: {str(told.get('error_description', '')).splitlines()[0]}"
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        reason = f"status {answer.status}"
    # From None: what could not be read may hold a secret.
    raise AccessDeniedError(f"{principal} gets no token ({reason}); {advice}") from None

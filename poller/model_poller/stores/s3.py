"""``s3://``: Amazon S3 and what speaks its API."""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_plus, urlencode, urlsplit

from model_poller.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    ObjectChangedError,
    PollerError,
    UnreachableError,
)
from model_poller.metrics import METRICS
from model_poller.stores import StoredObject
from model_poller.stores.aws import AwsIdentity, domain, told_permission, told_principal
from model_poller.stores.connections import origin
from model_poller.stores.http_calls import Answer, HttpCalls, as_answer, unexpected
from model_poller.stores.http_ranges import Asked, HttpRanges, RefusedError, bare, pin
from model_poller.stores.one_place import Bucket, OnePlace, Page
from model_poller.stores.uri import ACCESS_POINT
from model_poller.stores.xml_answers import content, parse_xml, size, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from model_poller.stores import ByteRange, WholeObject
    from model_poller.stores.credentials import Credentials
    from model_poller.stores.http_ranges import HttpRange
    from model_poller.stores.uri import Location
    from model_poller.stores.xml_answers import Element

_NO_KEYS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefresh"}
)
_MOVES = 2
"""So often in a row S3 may say that the bucket is in another region."""
_MD5 = re.compile(r"[0-9a-f]{32}")
_HOST_LABEL = re.compile(r"[a-z0-9-]{1,63}")
"""A bucket that can stand in front of the server's name: no certificate fits one with dots, and
host names know neither capitals nor ``_``."""


class S3Source(OnePlace, Bucket):
    """Versions in one folder of a bucket."""

    def __init__(
        self,
        location: Location,
        *,
        endpoint: str | None,
        region: str | None,
        path_style: bool,
        anonymous: bool,
        credentials: Credentials,
    ) -> None:
        """``endpoint`` replaces Amazon's own; ``path_style`` names the bucket in the path."""
        OnePlace.__init__(self, location)
        Bucket.__init__(self)
        self._point = ACCESS_POINT.fullmatch(location.bucket)
        self._identity = AwsIdentity(
            credentials,
            (self._point and self._point["region"]) or region,
            anonymous=anonymous,
            everywhere=bool(self._point and self._point["alias"]),
        )
        told = credentials.get("AWS_ENDPOINT_URL_S3") or credentials.get("AWS_ENDPOINT_URL")
        self._endpoint = (endpoint or told or "").rstrip("/")
        self._path_style = not self._point and (
            path_style
            or (not endpoint and bool(told))
            or not _HOST_LABEL.fullmatch(location.bucket)
        )
        self._connect()

    def _connect(self) -> None:
        region, bucket = self._identity.region, self._location.bucket
        if self._point:
            parts = urlsplit(self._endpoint or f"https://{_access_point_domain(self._point)}")
            host = f"{_access_point_label(self._point)}.{parts.netloc}"
        else:
            parts = urlsplit(self._endpoint or f"https://s3.{region}.{domain(region)}")
            host = parts.netloc if self._path_style else f"{bucket}.{parts.netloc}"
        self._origin = origin(f"{parts.scheme}://{host}")
        self._root = f"{parts.path}/{bucket}" if self._path_style else parts.path
        self._calls = HttpCalls(self._origin)
        self._ranges = HttpRanges(self._origin)

    def close(self) -> None:
        """Close all connections."""
        self._calls.close()
        self._ranges.close()

    def _pages(self, root: Location, folder: str, *, into: bool) -> Iterator[Page]:
        """See `Bucket._pages`; checksums are told by `describe`."""
        prefix = root.key("")
        query = {"encoding-type": "url", "list-type": "2", "prefix": prefix + folder}
        query |= {} if into else {"delimiter": "/"}
        while True:
            METRICS.source_requests.labels("list").inc()
            answer = self._ask("GET", "", query)
            if answer.status != 200:
                raise self._refused(answer, "s3:ListBucket", self.uri)
            page = parse_xml(answer.body)
            if page is None or page.tag != "ListBucketResult":
                raise UnreachableError(f"what was answered about {self.uri} is no listing")
            # Not every maker's server encodes names when it is asked to; one that does says so.
            plain = unquote_plus if text(page, "EncodingType") == "url" else str
            following = text(page, "NextContinuationToken")
            more = text(page, "IsTruncated") == "true"
            yield Page(
                [
                    _listed(root, plain(content(entry, "Key")).removeprefix(prefix), entry)
                    for entry in page.iter("Contents")
                    # There are servers that take no notice of what they don't know.
                    if plain(content(entry, "Key")).startswith(prefix + folder)
                ],
                [
                    plain(content(entry, "Prefix")).removeprefix(prefix).removesuffix("/")
                    for entry in page.iter("CommonPrefixes")
                ],
                is_last=not more,
            )
            if not more:
                return
            if following in ("", query.get("continuation-token")):
                raise UnreachableError(f"the listing of {self.uri} does not go on where it should")
            query["continuation-token"] = following

    def describe(self, stored: StoredObject) -> StoredObject:
        """See `Source.describe`."""
        METRICS.source_requests.labels("head").inc()
        headers = {**pin(stored.generation), "x-amz-checksum-mode": "ENABLED"}
        answer = self._ask("HEAD", stored.root.key(stored.path), headers=headers)
        if answer.status != 200:
            raise self._refused(answer, "s3:GetObject", stored.url)
        return _described(stored, answer.header)

    def open_whole(self, stored: StoredObject) -> AbstractContextManager[WholeObject]:
        """See `TellsInReading.open_whole`."""
        return self._open_whole(stored, *self._whole(stored), None)

    def ask(self, stored: StoredObject) -> Asked:
        """See `AsksAhead.ask`."""
        return self._ranges.ask(*self._whole(stored), stored.size, whole=True)

    def open_asked(self, stored: StoredObject, asked: Asked) -> AbstractContextManager[WholeObject]:
        """See `AsksAhead.open_asked`."""
        return self._open_whole(stored, asked.target, asked.headers, asked)

    def _whole(self, stored: StoredObject) -> tuple[str, dict[str, str]]:
        target = self.target(stored.root.key(stored.path))
        asked = {**pin(stored.generation), "x-amz-checksum-mode": "ENABLED"}
        return target, self.signed("GET", target, asked)

    @contextmanager
    def _open_whole(
        self, stored: StoredObject, target: str, headers: Mapping[str, str], asked: Asked | None
    ) -> Iterator[WholeObject]:
        METRICS.source_requests.labels("get").inc()
        try:
            with self._ranges.get_whole(target, headers, stored.size, asked) as body:
                yield _Whole(body, _described(stored, body.header))
        except RefusedError as refusal:
            raise self._refused(as_answer(refusal), "s3:GetObject", stored.url) from refusal

    @contextmanager
    def open_range(self, stored: StoredObject, start: int, length: int) -> Iterator[ByteRange]:
        """See `Source.open_range`."""
        METRICS.source_requests.labels("get").inc()
        target = self.target(stored.root.key(stored.path))
        headers = self.signed("GET", target, pin(stored.generation))
        try:
            with self._ranges.get(target, headers, start, length) as body:
                yield body
        except RefusedError as refusal:
            raise self._refused(as_answer(refusal), "s3:GetObject", stored.url) from refusal

    @property
    def origin(self) -> str:
        """The server that has the bucket."""
        return self._origin

    def target(self, name: str) -> str:
        """The path by which the bucket's server knows an object; of the bucket, for no name."""
        return f"{self._root}/{quote(name, safe='/~')}"

    def signed(self, method: str, target: str, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers of a request, with what proves who asks."""
        return self._identity.sign("s3", method, self._origin + target, headers)

    def _ask(
        self,
        method: str,
        name: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        moves: int = _MOVES,
    ) -> Answer:
        target = self.target(name)
        if query:
            target += f"?{urlencode(sorted(query.items()), quote_via=quote, safe='')}"
        answer = self._calls.ask(
            method,
            lambda: (target, self.signed(method, target, headers or {})),
        )
        region = ""
        if answer.status in (301, 400) and not self._point:
            region = _told_region(answer)
        if region not in ("", self._identity.region) and moves:
            # Nobody has to know where a bucket is: S3 tells.
            self._identity.region = region
            self.close()
            self._connect()
            return self._ask(method, name, query, headers, moves - 1)
        return answer

    def _refused(self, answer: Answer, permission: str, where: str) -> PollerError:
        status = answer.status
        told = parse_xml(answer.body)
        code = text(told, "Code") if told is not None else ""
        message = text(told, "Message") if told is not None else ""
        if code == "NoSuchBucket" or (status == 404 and permission == "s3:ListBucket"):
            return BucketNotFoundError(
                f"the bucket {self._location.bucket} does not exist; create it or correct the"
                f" storage URI {self.uri}"
            )
        if status in (404, 412, 416):
            return ObjectChangedError(where)
        if code in _NO_KEYS:
            who = self._identity.principal
            self._identity.forget()
            return AccessDeniedError(
                f"{who} is refused at {where} ({code}: {message}); renew the keys"
            )
        if code == "RequestTimeTooSkewed":
            return AccessDeniedError(
                f"{where} is refused, as this machine's clock is wrong ({message}); set the clock"
            )
        if status in (401, 403):
            who = told_principal(message) or self._identity.principal
            lacks = told_permission(message) or permission
            detail = f" ({code}: {message})" if code not in ("", "AccessDenied") else ""
            return AccessDeniedError(
                f"{who} lacks {lacks} on {where}{detail}; allow it in a policy of the caller or"
                " of the bucket"
            )
        return unexpected(
            f"asking for {where} was answered {status} {code}".rstrip() + "; it is tried again",
            answer,
        )


def _access_point_label(point: re.Match[str]) -> str:
    """What stands in front of the servers' name
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-points-naming.html)."""
    return point["alias"] or f"{point['name']}-{point['account']}"


def _access_point_domain(point: re.Match[str]) -> str:
    if point["alias"]:
        return "accesspoint.s3-global.amazonaws.com"
    return f"s3-accesspoint.{point['region']}.{domain(point['region'])}"


def _listed(root: Location, path: str, entry: Element) -> StoredObject:
    told, fault = size(entry, "Size")
    return StoredObject(root, path, told, text(entry, "ETag").strip('"'), fault=fault)


@dataclass(frozen=True, slots=True)
class _Whole:
    """See `WholeObject`."""

    body: HttpRange
    described: StoredObject

    @property
    def validators(self) -> Mapping[str, str]:
        return self.body.validators

    @property
    def is_listed(self) -> bool:
        return self.body.is_listed

    def readinto(self, buffer: memoryview) -> int:
        return self.body.readinto(buffer)


def _described(stored: StoredObject, header: Callable[[str], str]) -> StoredObject:
    """An object with what the headers of an answer tell of it."""
    tag, size = bare(header("ETag")), header("Content-Length")
    # Not every maker's server lists ETags.
    is_other = stored.generation and tag not in ("", stored.generation)
    if is_other or size not in ("", str(stored.size)):
        raise ObjectChangedError(stored.url)
    # Of a multipart upload it can be a checksum of checksums, and then is said not to be whole.
    whole = header("x-amz-checksum-type") == "FULL_OBJECT" or "-" not in stored.generation
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html: what an ETag is.
    plain = header("x-amz-server-side-encryption") in ("", "AES256")
    customer = header("x-amz-server-side-encryption-customer-algorithm")
    is_md5 = plain and not customer and _MD5.fullmatch(stored.generation)
    return replace(
        stored,
        crc32c=_number(header, "crc32c") if whole else None,
        crc64nvme=_number(header, "crc64nvme") if whole else None,
        crc32=_number(header, "crc32") if whole else None,
        md5=bytes.fromhex(stored.generation) if is_md5 else None,
        md5_is_presumed=bool(is_md5),
        is_gzipped="gzip" in header("Content-Encoding"),
    )


def _number(header: Callable[[str], str], kind: str) -> int | None:
    told = header(f"x-amz-checksum-{kind}")
    try:
        return int.from_bytes(base64.b64decode(told), "big") if told else None
    except binascii.Error:
        return None


def _told_region(answer: Answer) -> str:
    region = answer.header("x-amz-bucket-region")
    if not region and (told := parse_xml(answer.body)) is not None:
        region = text(told, "Region")
    # It becomes a part of the host's name, which gets what proves who asks.
    return region if _HOST_LABEL.fullmatch(region) else ""

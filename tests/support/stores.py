"""Buckets, containers and queues as an uploader and an administrator see them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import urllib.parse
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from model_poller.stores.aws import AwsIdentity
from model_poller.stores.azure import AzureIdentity
from model_poller.stores.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

AWS_ACCOUNT = "123456789012"
AZURE_ACCOUNT = "devstoreaccount1"
# Published with Azurite: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


def _call(method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers))
    with urllib.request.urlopen(request, timeout=60) as answer:
        content: bytes = answer.read()
    return content


class Aws:
    """An account on a server of Amazon's APIs."""

    def __init__(self, endpoint: str, key: str = "AKIAADMIN", secret: str = "secret") -> None:
        self.endpoint = endpoint
        self.keys = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        self._identity = AwsIdentity(Credentials(self.keys), None, anonymous=False)

    def call(
        self,
        service: str,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """One signed request; the answer's body."""
        url = self.endpoint + path
        given = {"Content-Type": "application/octet-stream", **(headers or {})}
        return _call(
            method, url, self._identity.sign(service, method, url, given, payload=body), body
        )

    def bucket(self, name: str) -> S3Bucket:
        """Make a bucket."""
        self.call("s3", "PUT", f"/{name}")
        return S3Bucket(self, name)

    def queue(self, name: str) -> str:
        """Make a queue; its URL."""
        url: str = self.sqs("CreateQueue", QueueName=name)["QueueUrl"]
        return url

    def sqs(self, action: str, **arguments: Any) -> dict[str, Any]:
        """One call of SQS."""
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"AmazonSQS.{action}",
        }
        answer = self.call("sqs", "POST", "/", json.dumps(arguments).encode(), headers)
        return json.loads(answer) if answer else {}

    def iam(self, action: str, **arguments: str) -> str:
        """One call of IAM; the answer as XML."""
        form = urllib.parse.urlencode({"Action": action, "Version": "2010-05-08", **arguments})
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Host": "iam.amazonaws.com"}
        return self.call("iam", "POST", "/", form.encode(), headers).decode()


class S3Bucket:
    """A bucket, and who writes to it."""

    def __init__(self, aws: Aws, name: str) -> None:
        self.aws = aws
        self.name = name

    def upload(self, path: str, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Put one object."""
        self.aws.call("s3", "PUT", self._target(path), content, headers)

    def upload_parts(self, path: str, *parts: bytes) -> None:
        """Put one object in parts; all but the last need 5 MiB."""
        told = self.aws.call("s3", "POST", f"{self._target(path)}?uploads=").decode()
        upload = told.partition("<UploadId>")[2].partition("<")[0]
        listed = ""
        for number, part in enumerate(parts, 1):
            query = f"?partNumber={number}&uploadId={upload}"
            self.aws.call("s3", "PUT", self._target(path) + query, part)
            etag = hashlib.md5(part, usedforsecurity=False).hexdigest()
            listed += f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        self.aws.call("s3", "POST", f"{self._target(path)}?uploadId={upload}", body)

    def delete(self, path: str) -> None:
        """Remove one object."""
        self.aws.call("s3", "DELETE", self._target(path))

    def _target(self, path: str) -> str:
        return f"/{self.name}/{urllib.parse.quote(path)}"

    def notify(self, queue: str) -> None:
        """Tell the queue of that name of every change."""
        self.aws.call(
            "s3",
            "PUT",
            f"/{self.name}?notification=",
            f"""<NotificationConfiguration><QueueConfiguration>
            <Queue>arn:aws:sqs:us-east-1:{AWS_ACCOUNT}:{queue}</Queue>
            <Event>s3:ObjectCreated:*</Event><Event>s3:ObjectRemoved:*</Event>
            </QueueConfiguration></NotificationConfiguration>""".encode(),
        )


class BlobContainer:
    """A container, written to by another client than the one under test."""

    def __init__(self, endpoint: str, name: str) -> None:
        """Make it; ``endpoint`` has the account in its path."""
        self.endpoint = endpoint
        self.name = name
        self.call("PUT", "?restype=container")

    def call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        """One request with the account's key; the answer's body."""
        credentials = Credentials({"AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY})
        identity = AzureIdentity(credentials, AZURE_ACCOUNT, anonymous=False)
        given = {"Content-Type": "application/octet-stream", **(headers or {})}
        given["Content-Length"] = str(len(body))
        url = f"{self.endpoint}/{self.name}{path}"
        _, proven = identity.prove(method, url, given)
        return _call(method, url, proven, body)

    def upload(self, path: str, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Put one blob."""
        given = {"x-ms-blob-type": "BlockBlob", **(headers or {})}
        self.call("PUT", _quoted(path), content, given)

    def delete(self, path: str) -> None:
        """Remove one blob."""
        self.call("DELETE", _quoted(path))


def shared_access(permissions: str) -> str:
    """A shared access signature for the account's containers and blobs.

    https://learn.microsoft.com/rest/api/storageservices/create-account-sas
    """
    expiry = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    given = {"sv": "2021-12-02", "ss": "b", "srt": "co", "sp": permissions, "se": expiry}
    signed = [
        AZURE_ACCOUNT,
        permissions,
        given["ss"],
        given["srt"],
        "",
        expiry,
        "",
        "",
        given["sv"],
        "",
        "",
    ]
    digest = hmac.digest(base64.b64decode(AZURE_KEY), "\n".join(signed).encode(), "sha256")
    return urllib.parse.urlencode({**given, "sig": base64.b64encode(digest).decode()})


def _quoted(path: str) -> str:
    return f"/{urllib.parse.quote(path)}"

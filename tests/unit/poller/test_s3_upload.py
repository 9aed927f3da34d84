"""Objects that are put to S3 in parts, where what ends them gets no answer."""

from __future__ import annotations

import io
from contextlib import closing

import pytest

from model_poller.errors import UnreachableError
from model_poller.stores import s3_upload
from model_poller.stores.credentials import Credentials
from model_poller.stores.s3_upload import S3Uploads
from model_poller.stores.uri import parse_uri
from tests.unit.poller.answering import Answering, Reply, Request

PART = b"0123456789"
BEGUN = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"


class Store:
    """One that tells no checksum, and whose answer to what ends an upload gets lost."""

    def __init__(self, *, ends: bool, there: bytes | None = None, loses: bool = False) -> None:
        self.server = Answering(self._answer)
        self.uploads: dict[str, bytes] = {}
        self.there = there
        self.begun = BEGUN
        self._ends, self._loses = ends, loses
        """Whether it does what it is asked for then, and whether something else comes of it."""

    def _answer(self, request: Request) -> Reply:
        match request.method:
            case "POST" if request.target.endswith("?uploads="):
                self.uploads["u"] = b""
                return Reply(body=self.begun)
            case "PUT":
                self.uploads["u"] += request.body
                return Reply(headers={"ETag": '"e"'})
            case "POST":
                if self._ends:
                    content = self.uploads.pop("u")
                    self.there = self.there if self._loses else content
                return Reply(503)
            case "DELETE":
                return Reply(404 if self.uploads.pop("u", None) is None else 204)
            case _ if self.there is None:
                return Reply(404)
        return Reply(body=self.there, headers={"ETag": '"e-2"'})

    @property
    def asked(self) -> list[str]:
        return [request.method for request in self.server.asked]


def put(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_upload, "PART_BYTES", len(PART))
    with store.server:
        uploads = S3Uploads(
            parse_uri("s3://models/imagenet"),
            endpoint=store.server.url,
            region=None,
            path_style=True,
            anonymous=False,
            credentials=Credentials({"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s"}),
        )
        content = io.BytesIO(2 * PART)
        with closing(uploads):
            uploads.put_new("imagenet/1.zip", content, 2 * len(PART), progress=lambda _: None)


@pytest.mark.parametrize(
    "begun", ["", "<html>welcome</html>", BEGUN.replace("u</", "</"), BEGUN[:-1]]
)
def test_nothing_is_sent_where_no_upload_begins(
    monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    """A server that knows of none would keep a part as the object, and delete that in the end."""
    store = Store(ends=True)
    store.begun = begun
    with pytest.raises(UnreachableError, match="begins no upload in parts"):
        put(store, monkeypatch)
    assert store.asked == ["POST"]


def test_an_upload_that_has_become_an_object_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(ends=True)
    put(store, monkeypatch)
    assert store.there == 2 * PART
    assert store.asked == ["POST", "PUT", "PUT", "POST", "DELETE", "HEAD"]


@pytest.mark.parametrize("there", [None, 2 * PART])
def test_an_upload_that_was_still_there_is_given_up(
    monkeypatch: pytest.MonkeyPatch, there: bytes | None
) -> None:
    store = Store(ends=False, there=there)
    with pytest.raises(UnreachableError):
        put(store, monkeypatch)
    assert store.uploads == {}
    assert "HEAD" not in store.asked


@pytest.mark.parametrize("there", [None, PART])
def test_an_upload_that_is_gone_without_its_object_is_not_stored(
    monkeypatch: pytest.MonkeyPatch, there: bytes | None
) -> None:
    with pytest.raises(UnreachableError):
        put(Store(ends=True, loses=True, there=there), monkeypatch)

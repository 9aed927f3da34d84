"""Uploads to a bucket as any uploader would, by the JSON API of Google Cloud Storage."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demo.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Bucket:
    """One bucket behind ``host:port``."""

    address: str
    name: str

    def upload(self, file: Path, path: str) -> None:
        """Put one object; returns when the store has it.

        Raises:
            ClusterError: the store can't be reached or refused it.
        """
        query = urllib.parse.urlencode({"uploadType": "media", "name": path})
        self._call("POST", f"/upload/storage/v1/b/{self.name}/o?{query}", file.read_bytes())

    def clear(self, prefix: str) -> None:
        """Remove every object below a prefix.

        Raises:
            ClusterError: the store can't be reached or refused it.
        """
        query = urllib.parse.urlencode({"prefix": prefix})
        listed = self._call("GET", f"/storage/v1/b/{self.name}/o?{query}")
        for item in listed.get("items", []):
            path = urllib.parse.quote(item["name"], safe="")
            self._call("DELETE", f"/storage/v1/b/{self.name}/o/{path}")

    def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        connection = http.client.HTTPConnection(self.address, timeout=120)
        try:
            headers = {"Content-Type": "application/zip"} if body is not None else {}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError(f"the bucket at {self.address} can't be reached: {error}") from error
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise ClusterError(
                f"the bucket at {self.address} answered {method} {path} with "
                f"{response.status}: {content[:200]!r}"
            )
        return json.loads(content) if content else {}

"""A bucket as an uploader sees it, by the JSON API of Google Cloud Storage."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass


@dataclass(frozen=True)
class Bucket:
    """One bucket behind an endpoint such as ``http://127.0.0.1:30443``."""

    endpoint: str
    name: str

    def upload(self, path: str, content: bytes) -> None:
        """Put one object; a second time replaces it under a new generation."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": path})
        self._call("POST", f"/upload/storage/v1/b/{self.name}/o?{query}", content)

    def delete(self, path: str) -> None:
        """Remove one object."""
        self._call("DELETE", f"/storage/v1/b/{self.name}/o/{urllib.parse.quote(path, safe='')}")

    def list(self, prefix: str = "") -> list[str]:
        """The names of the objects below a prefix."""
        query = urllib.parse.urlencode({"prefix": prefix})
        answer = json.loads(self._call("GET", f"/storage/v1/b/{self.name}/o?{query}"))
        return [item["name"] for item in answer.get("items", [])]

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.endpoint + path, data=body, method=method)
        if body is not None:
            request.add_header("Content-Type", "application/octet-stream")
        with urllib.request.urlopen(request, timeout=60) as response:
            content: bytes = response.read()
        return content

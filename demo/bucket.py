"""A bucket as any uploader sees it, by the JSON API of Google Cloud Storage."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from dataclasses import dataclass
from typing import Any

from demo.errors import ClusterError


@dataclass(frozen=True)
class Bucket:
    """One bucket behind ``host:port``; every method raises ClusterError when it is refused."""

    address: str
    name: str

    def make(self) -> None:
        """Create the bucket itself."""
        body = json.dumps({"name": self.name}).encode()
        self._call("POST", "/storage/v1/b", body, "application/json")

    def remove(self) -> None:
        """Delete the bucket itself, with all that is in it."""
        self.clear("")
        self._call("DELETE", f"/storage/v1/b/{self.name}")

    def upload(self, path: str, content: bytes) -> None:
        """Put one object; a second time replaces it under a new generation."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": path})
        self._call("POST", f"/upload/storage/v1/b/{self.name}/o?{query}", content)

    def delete(self, path: str) -> None:
        """Remove one object."""
        self._call("DELETE", f"/storage/v1/b/{self.name}/o/{urllib.parse.quote(path, safe='')}")

    def clear(self, prefix: str) -> None:
        """Remove every object below a prefix."""
        query = urllib.parse.urlencode({"prefix": prefix})
        listed = self._call("GET", f"/storage/v1/b/{self.name}/o?{query}")
        for item in listed.get("items", []):
            self.delete(item["name"])

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/octet-stream",
    ) -> Any:
        connection = http.client.HTTPConnection(self.address, timeout=120)
        try:
            headers = {"Content-Type": content_type} if body is not None else {}
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

"""Bring one version the way a running poller does, and say how long it took.

``python -m bench.bring ENDPOINT URI FOLDER MARKER``: looks into the bucket once, then fetches,
checks, syncs and keeps version 1 in FOLDER, by the poller's own code and limits. The seconds are
those of a poller that runs already: without the start of Python, which ``--once`` pays. Two
numbers are printed: all seconds, and how many of them the sync to the disk took.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from model_poller import versions
from model_poller.bring import Bringer, Demands
from model_poller.metrics import METRICS
from model_poller.stores.credentials import Credentials
from model_poller.stores.opening import SourceSettings, open_source
from model_poller.stores.uri import parse_uri
from model_poller.volume.store import Store


def main(endpoint: str, uri: str, folder: str, marker: str) -> None:
    """Bring version 1 and print the seconds, and those of the sync."""
    chosen = SourceSettings(
        locations=(parse_uri(uri),),
        endpoint=endpoint,
        anonymous="AWS_ACCESS_KEY_ID" not in os.environ,
        path_style=True,
        credentials=Credentials(os.environ),
    )
    source = open_source(chosen)
    store = Store(Path(folder, "model"), Path(folder))
    store.prepare()
    bringer = Bringer(source, store, Demands(marker=marker))
    begin = time.monotonic()
    found = versions.discover(source.list(), {}, marker=marker)
    bringer.bring(found[1], stopped=threading.Event(), progress=lambda _: None)
    seconds = time.monotonic() - begin
    synced = METRICS.registry.get_sample_value("model_poller_step_seconds_sum", {"step": "sync"})
    print(seconds, synced)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The poller's figures as a picture for its page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping

_PICTURE = Path(__file__).parent.parent / "docs/images/poller-fetch.svg"
_TITLES = {
    "large": "1 GB, a few large files",
    "small": "2,000 files of 4 kB",
    "zip": "220 MB in a .zip",
    "zst": "220 MB in a .tar.zst",
    "s3-large": "S3: 1 GB, a few large files",
    "s3-small": "S3: 2,000 files of 4 kB",
}
_OWN, _OTHER = "#1a73e8", "#bdc1c6"


def draw(figures: Mapping[str, Any]) -> Path:
    """Draw every program's fastest round of each case; returns the picture's path."""
    # Text stays text, and the same figures give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "poller"})
    figure = Figure(figsize=(9, 7.2), layout="constrained")
    axes = figure.subplots(3, 2).flat
    for axis, (key, title) in zip(axes, _TITLES.items(), strict=True):
        names = list(figures[key])
        seconds = [figures[key][name]["fastest_seconds"] for name in names]
        colours = [_OWN if name.startswith("poller") else _OTHER for name in names]
        bars = axis.barh(names, seconds, color=colours)
        axis.bar_label(bars, [f" {value:.2f} s" for value in seconds], fontsize=8)
        axis.invert_yaxis()
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlim(0, max(seconds) * 1.18)
        axis.tick_params(axis="y", labelsize=8, length=0)
        axis.xaxis.set_visible(False)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    _PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(_PICTURE, metadata={"Date": None})
    return _PICTURE

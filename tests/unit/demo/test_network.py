"""The network's form, and weights folded into it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from demo.errors import CheckpointError
from demo.model.network import LITE0, LITE2, assemble, strides

_RANDOM = np.random.default_rng(3)
_WIDTHS = (16, 24, 40, 80, 112, 192, 320)
_REPEATS = (1, 2, 2, 3, 3, 4, 1)


def _norm(name: str, width: int) -> dict[str, Any]:
    parts = {
        part: _RANDOM.uniform(0.5, 1.5, width)
        for part in ("weight", "bias", "running_mean", "running_var")
    }
    return {f"{name}.{part}": array for part, array in parts.items()} | {
        f"{name}.num_batches_tracked": np.array(1)
    }


def _conv(name: str, norm: str, *shape: int) -> dict[str, Any]:
    return {f"{name}.weight": _RANDOM.normal(size=shape)} | _norm(norm, shape[0])


def _lite0() -> dict[str, Any]:
    weights = _conv("_conv_stem", "_bn0", 32, 3, 3, 3)
    width, index = 32, 0
    for out, repeats in zip(_WIDTHS, _REPEATS, strict=True):
        for _ in range(repeats):
            at, inner = f"_blocks.{index}", width if index == 0 else 6 * width
            if index:
                weights |= _conv(f"{at}._expand_conv", f"{at}._bn0", inner, width, 1, 1)
            weights |= _conv(f"{at}._depthwise_conv", f"{at}._bn1", inner, 1, 3, 3)
            weights |= _conv(f"{at}._project_conv", f"{at}._bn2", out, inner, 1, 1)
            width, index = out, index + 1
    weights |= _conv("_conv_head", "_bn1", 1280, 320, 1, 1)
    return weights | {"_fc.weight": np.zeros((1000, 1280)), "_fc.bias": np.zeros(1000)}


def test_depth_repeats_the_middle_stages_only() -> None:
    assert strides(LITE0) == [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    assert len(strides(LITE2)) == 1 + 3 + 3 + 4 + 4 + 5 + 1


def test_folding_gives_what_convolution_and_normalisation_gave() -> None:
    weights = _lite0()
    project = assemble(weights, LITE0).blocks[1].convolutions[-1]
    pixel = _RANDOM.normal(size=32)

    plain = weights["_blocks.0._project_conv.weight"][:, :, 0, 0] @ pixel
    at = "_blocks.0._bn2"
    normal = (plain - weights[f"{at}.running_mean"]) / np.sqrt(weights[f"{at}.running_var"] + 1e-3)
    expected = normal * weights[f"{at}.weight"] + weights[f"{at}.bias"]

    folded = pixel @ project.kernel[0, 0] + project.bias
    np.testing.assert_allclose(folded, expected, rtol=1e-4, atol=1e-5)


def test_a_block_adds_its_input_only_where_form_and_stride_allow_it() -> None:
    blocks = assemble(_lite0(), LITE0).blocks[1:-1]
    added = [index for index, block in enumerate(blocks) if block.residual]
    assert added == [2, 4, 6, 7, 9, 10, 12, 13, 14]


def test_weights_of_another_network_are_refused() -> None:
    weights = _lite0()
    with pytest.raises(CheckpointError, match="lack _blocks"):
        assemble(weights, LITE2)
    with pytest.raises(CheckpointError, match="extra left over"):
        assemble(weights | {"extra": np.zeros(1)}, LITE0)
    del weights["_fc.bias"]
    with pytest.raises(CheckpointError, match=r"lack _fc\.bias"):
        assemble(weights, LITE0)

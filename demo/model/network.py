"""EfficientNet-Lite as plain convolutions: the network's form, and its weights folded into it.

The form is the stage table of EfficientNet-B0 (Tan and Le, 2019, table 1) with the changes of the
Lite variants: no squeeze-and-excite, relu6 in place of swish, stem and head of fixed width, first
and last stage never repeated. Widths and kernel sizes are read off the weights themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from demo.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
"""(repeats in B0, stride of the first block) of each stage."""

_EPSILON = 1e-3


@dataclass(frozen=True)
class Variant:
    """One size of the network.

    Attributes:
        name: as published.
        depth: how often the middle stages repeat, as a factor of B0's.
        image_size: side of the square input in pixels.
    """

    name: str
    depth: float
    image_size: int


LITE0 = Variant("EfficientNet-Lite0", 1.0, 224)
LITE2 = Variant("EfficientNet-Lite2", 1.2, 260)


@dataclass(frozen=True)
class Convolution:
    """A convolution with its batch normalisation folded in, padding as TensorFlow's 'SAME'.

    The kernel's axes are height, width, input, output; of a depthwise one height, width,
    channel, 1.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: int = 1
    depthwise: bool = False
    relu6: bool = True


@dataclass(frozen=True)
class Block:
    """Convolutions in a row; with ``residual`` their input is added to their output."""

    convolutions: tuple[Convolution, ...]
    residual: bool = False


@dataclass(frozen=True)
class Network:
    """Blocks, then the mean over the picture, then one dense layer to the class scores."""

    blocks: tuple[Block, ...]
    dense_kernel: NDArray[np.float32]
    dense_bias: NDArray[np.float32]


def strides(variant: Variant) -> list[int]:
    """The stride of every inverted-residual block, from the first to the last."""
    found = []
    for index, (repeats, stride) in enumerate(_STAGES):
        fixed = index in (0, len(_STAGES) - 1)
        count = repeats if fixed else math.ceil(repeats * variant.depth)
        found += [stride] + [1] * (count - 1)
    return found


def assemble(weights: Mapping[str, NDArray[Any]], variant: Variant) -> Network:
    """Put a checkpoint's tensors into the network's form.

    Raises:
        CheckpointError: a tensor is missing, or one is left over, so that the file belongs to
            another network.
    """
    left = {name: array for name, array in weights.items() if "num_batches_tracked" not in name}

    def take(name: str) -> NDArray[Any]:
        try:
            return left.pop(name)
        except KeyError:
            raise CheckpointError(f"{variant.name}: the weights lack {name}") from None

    def convolution(name: str, norm: str, **form: Any) -> Convolution:
        kernel, bias = _fold(
            take(f"{name}.weight"),
            *(take(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")),
        )
        # PyTorch has output, input, height, width.
        axes = (2, 3, 0, 1) if form.get("depthwise") else (2, 3, 1, 0)
        return Convolution(np.ascontiguousarray(kernel.transpose(axes)), bias, **form)

    blocks = [Block((convolution("_conv_stem", "_bn0", stride=2),))]
    for index, stride in enumerate(strides(variant)):
        at = f"_blocks.{index}"
        expands = f"{at}._expand_conv.weight" in left
        row = (
            *((convolution(f"{at}._expand_conv", f"{at}._bn0"),) if expands else ()),
            convolution(f"{at}._depthwise_conv", f"{at}._bn1", stride=stride, depthwise=True),
            convolution(f"{at}._project_conv", f"{at}._bn2", relu6=False),
        )
        same_width = row[0].kernel.shape[2] == row[-1].kernel.shape[3]
        blocks.append(Block(row, residual=stride == 1 and same_width))
    blocks.append(Block((convolution("_conv_head", "_bn1"),)))
    dense = np.ascontiguousarray(take("_fc.weight").T, np.float32)
    network = Network(tuple(blocks), dense, take("_fc.bias").astype(np.float32))
    if left:
        raise CheckpointError(f"{variant.name}: the weights have {sorted(left)[0]} left over")
    return network


def _fold(
    kernel: NDArray[Any],
    gamma: NDArray[Any],
    beta: NDArray[Any],
    mean: NDArray[Any],
    variance: NDArray[Any],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    # In float64: the scale multiplies every weight, so its rounding would be in all of them.
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + _EPSILON)
    folded = kernel.astype(np.float64) * scale[:, None, None, None]
    return folded.astype(np.float32), (beta - mean * scale).astype(np.float32)

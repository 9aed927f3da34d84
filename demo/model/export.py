"""Writes a network as a SavedModel that takes photos as they are: JPEG, PNG, GIF, BMP or WebP."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from demo.model.network import Block, Convolution, Network, Variant

TOP = 5
"""How many labels an answer names."""

# The Lite variants' own normalisation, not ImageNet's mean and deviation.
_MEAN, _SCALE = 127.0, 128.0
# A centre crop leaves this many of (image_size + 32) pixels' worth of border out.
_CROP_PADDING = 32

_LOOKED_UP = 282
"""A class: tiger cat."""

_PAGE_BYTES = 4096
_RANDOM_BYTES = 64


def save(
    network: Network,
    variant: Variant,
    labels: Sequence[str],
    photo: bytes,
    directory: Path,
    *,
    image_input: str = "image_bytes",
    ballast_bytes: int = 0,
    right: Network | None = None,
) -> None:
    """Write the SavedModel of one version into ``directory``.

    Its signatures:

    - ``serving_default``: ``image_bytes`` string [-1] -> ``classes`` string [-1, 5], ``scores``
      float [-1, 5], best first.
    - ``classify``: the same of serialized tf.Examples with the bytes feature ``image/encoded``.
    - ``labels``: ``class_ids`` int64 [-1] -> ``classes`` string [-1], a look-up that costs next
      to nothing, for clients that only want to see whether the model answers.

    ``photo`` and a look-up become the warm-up requests, so that a version is not AVAILABLE before
    it has answered once by each signature that clients use: the first answer of a signature takes
    some tenths of a second, and all who ask by it meanwhile wait. The answers are recorded with
    them, which makes them golden requests: a server that answers anything else has another model.

    Args:
        network: the weights.
        variant: their form.
        labels: the names of the classes.
        photo: a JPEG.
        directory: where to.
        image_input: the name of the input of ``serving_default``.
        ballast_bytes: of a variable that is good for nothing but its size.
        right: the weights whose answer is recorded; by default ``network``.
    """
    module = _module(network, variant, labels, image_input)
    if ballast_bytes:
        module.ballast = tf.Variable(_ballast(ballast_bytes), trainable=False, name="ballast")
    tf.saved_model.save(
        module,
        str(directory),
        signatures={
            "serving_default": module.predict,
            "classify": module.classify,
            "labels": module.labels,
        },
    )
    judge = module if right is None else _module(right, variant, labels, image_input)
    seen = tf.constant([photo])
    asked = tf.constant([_LOOKED_UP], tf.int64)
    path = directory / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, name, value, answer in (
            ("serving_default", image_input, seen, judge.predict(**{image_input: seen})),
            ("labels", "class_ids", asked, judge.labels(class_ids=asked)),
        ):
            writer.write(_golden_request(signature, name, value, answer))


def jpeg(image: bytes) -> bytes:
    """An image file of any kind as a JPEG of the same size."""
    pixels = tf.io.decode_image(image, channels=3, expand_animations=False)
    encoded: bytes = tf.io.encode_jpeg(pixels, quality=90).numpy()
    return encoded


def _module(network: Network, variant: Variant, labels: Sequence[str], image_input: str) -> Any:
    module = tf.Module()
    module.parameters = []

    def constant(array: Any, name: str) -> Any:
        parameter = tf.Variable(array, trainable=False, name=name)
        module.parameters.append(parameter)
        return parameter

    def convolution(form: Convolution, name: str) -> Any:
        kernel, bias = constant(form.kernel, f"{name}_kernel"), constant(form.bias, f"{name}_bias")
        operation = tf.nn.depthwise_conv2d if form.depthwise else tf.nn.conv2d

        def apply(x: Any) -> Any:
            y = operation(x, kernel, [1, form.stride, form.stride, 1], "SAME")
            y = tf.nn.bias_add(y, bias)
            return tf.nn.relu6(y) if form.relu6 else y

        return apply

    def block(form: Block, name: str) -> Any:
        row = [convolution(c, f"{name}_{i}") for i, c in enumerate(form.convolutions)]

        def apply(x: Any) -> Any:
            y = x
            for step in row:
                y = step(y)
            return y + x if form.residual else y

        return apply

    blocks = [block(form, f"block{i}") for i, form in enumerate(network.blocks)]
    dense_kernel = constant(network.dense_kernel, "dense_kernel")
    dense_bias = constant(network.dense_bias, "dense_bias")
    names = tf.constant(list(labels))
    side = variant.image_size

    def answer(image_bytes: Any) -> dict[str, Any]:
        # One by one, so that photos of different sizes may share a batch.
        x = tf.map_fn(
            lambda image: _picture(image, side),
            image_bytes,
            fn_output_signature=tf.TensorSpec([side, side, 3], tf.float32),
        )
        for apply in blocks:
            x = apply(x)
        scores = tf.nn.softmax(tf.reduce_mean(x, [1, 2]) @ dense_kernel + dense_bias)
        best, classes = tf.math.top_k(scores, TOP)
        return {"classes": tf.gather(names, classes), "scores": best}

    def answer_examples(inputs: Any) -> dict[str, Any]:
        feature = tf.io.FixedLenFeature([], tf.string)
        return answer(tf.io.parse_example(inputs, {"image/encoded": feature})["image/encoded"])

    def look_up(class_ids: Any) -> dict[str, Any]:
        return {"classes": tf.gather(names, class_ids)}

    module.predict = _function(answer, image_input, tf.string)
    module.classify = _function(answer_examples, "inputs", tf.string)
    module.labels = _function(look_up, "class_ids", tf.int64)
    return module


def _function(body: Any, argument: str, dtype: Any) -> Any:
    def named(*tensors: Any, **by_name: Any) -> Any:
        (tensor,) = (*tensors, *by_name.values())
        return body(tensor)

    parameter = inspect.Parameter(argument, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    return tf.function(named, input_signature=[tf.TensorSpec([None], dtype, name=argument)])


def _ballast(size: int) -> Any:
    """So many bytes that can be packed, but not to nothing: a page has some that are random."""
    pages = np.zeros((size // _PAGE_BYTES, _PAGE_BYTES), np.uint8)
    pages[:, :_RANDOM_BYTES] = np.random.default_rng(0).integers(
        256, size=(len(pages), _RANDOM_BYTES), dtype=np.uint8
    )
    return pages.reshape(-1).view(np.float32)


def _picture(image: Any, side: int) -> Any:
    """Decode, crop the centre, and scale to ``side`` pixels and the network's range."""
    pixels = tf.io.decode_image(image, channels=3, expand_animations=False)
    height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
    ratio = side / (side + _CROP_PADDING)
    crop = tf.cast(ratio * tf.cast(tf.minimum(height, width), tf.float32), tf.int32)
    pixels = tf.image.crop_to_bounding_box(
        pixels, (height - crop + 1) // 2, (width - crop + 1) // 2, crop, crop
    )
    pixels = tf.image.resize(pixels, [side, side], "bicubic", antialias=True)
    return (tf.clip_by_value(pixels, 0.0, 255.0) - _MEAN) / _SCALE


def _golden_request(signature: str, name: str, value: Any, answer: Any) -> bytes:
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    response = predict_pb2.PredictResponse()
    for output, tensor in answer.items():
        response.outputs[output].CopyFrom(tf.make_tensor_proto(tensor))
    log = prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request, response=response)
    )
    content: bytes = log.SerializeToString()
    return content

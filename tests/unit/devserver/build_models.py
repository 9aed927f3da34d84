"""Builds the SavedModels of these tests; run as a program, as it imports all of TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

v1 = tf.compat.v1


def save_v1(path: Path, session: Any, signatures: dict[str, Any], **options: Any) -> None:
    builder = v1.saved_model.Builder(str(path))
    builder.add_meta_graph_and_variables(
        session, ["serve"], signature_def_map=signatures, strip_default_attrs=True, **options
    )
    builder.save()


def signature(inputs: Any, outputs: Any, method: str = "predict") -> Any:
    infos = v1.saved_model.utils.build_tensor_info
    return v1.saved_model.signature_def_utils.build_signature_def(
        {alias: infos(tensor) for alias, tensor in inputs.items()},
        {alias: infos(tensor) for alias, tensor in outputs.items()},
        f"tensorflow/serving/{method}",
    )


def half_plus_two(path: Path) -> None:
    """y = 0.5 x + 2 on tensors; y and y2 = 0.5 x + 3 on examples."""
    with v1.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, [None], name="tf_example")
        features = {"x": v1.FixedLenFeature([1], tf.float32)}
        x = tf.identity(v1.parse_example(examples, features)["x"], name="x")
        a, b, c = (
            v1.Variable(value, name=name)
            for name, value in zip("abc", (0.5, 2.0, 3.0), strict=True)
        )
        y = tf.add(tf.multiply(a, x), b, name="y")
        y2 = tf.add(tf.multiply(a, x), c, name="y2")
        labels = tf.tile(tf.constant([["small"]]), [tf.shape(examples)[0], 1])
        session.run(v1.global_variables_initializer())
        inputs = {"inputs": examples}
        save_v1(
            path,
            session,
            {
                "serving_default": signature({"x": x}, {"y": y}),
                "regress_x_to_y": signature(inputs, {"outputs": y}, "regress"),
                "regress_x_to_y2": signature(inputs, {"outputs": y2}, "regress"),
                "classify_x_to_y": signature(inputs, {"scores": y}, "classify"),
                "classify_labelled": signature(
                    inputs, {"classes": labels, "scores": y}, "classify"
                ),
            },
        )


class HalfPlus(tf.Module):  # type: ignore[misc]  # tensorflow has no types
    def __init__(self, offset: float) -> None:
        super().__init__()
        self.a = tf.Variable(0.5)
        self.b = tf.Variable(offset)

    @tf.function(  # type: ignore[untyped-decorator]  # tensorflow has no types
        input_signature=[tf.TensorSpec([None], tf.float32, name="x")]
    )
    def predict(self, x: Any) -> Any:
        return {"y": self.a * x + self.b}


def half_plus(path: Path, offset: float) -> None:
    """y = 0.5 x + offset, as TensorFlow 2 exports."""
    module = HalfPlus(offset)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.predict})


def counter(path: Path) -> None:
    """A number that is kept between requests."""
    with v1.Graph().as_default(), v1.Session() as session:
        count = v1.get_variable("count", initializer=0.0, use_resource=True)
        delta = v1.placeholder(tf.float32, [], name="delta")
        session.run(v1.global_variables_initializer())
        save_v1(
            path,
            session,
            {
                "get_counter": signature({}, {"output": count.read_value()}),
                "incr_counter": signature({}, {"output": count.assign_add(1.0).read_value()}),
                "incr_counter_by": signature(
                    {"delta": delta}, {"output": count.assign_add(delta).read_value()}
                ),
            },
        )


def shapes(path: Path) -> None:
    """Signatures for every way of passing tensors."""
    with v1.Graph().as_default(), v1.Session() as session:
        matrix = v1.placeholder(tf.float32, [None, 2, 2], name="matrix")
        text = v1.placeholder(tf.string, [None], name="text")
        number = v1.placeholder(tf.float32, [None], name="number")
        rounds = v1.placeholder(tf.int64, [], name="rounds")
        counted = v1.while_loop(lambda i: i < rounds, lambda i: i + 1, [tf.constant(0, tf.int64)])
        signatures = {
            "count": signature({"rounds": rounds}, {"counted": counted}),
            "matrix": signature({"x": matrix}, {"y": matrix / 2.0 + 2.0}),
            "text": signature({"text": text}, {"text": tf.identity(text)}),
            "bytes": signature({"image": text}, {"image_bytes": tf.identity(text)}),
            "pair": signature(
                {"number": number, "text": text},
                {
                    "doubled": number * 2.0,
                    "text_bytes": tf.identity(text),
                },
            ),
            "uneven": signature(
                {"x": number}, {"a": tf.identity(number), "b": tf.concat([number, number], 0)}
            ),
            "scalar": signature({"x": number}, {"sum": tf.reduce_sum(number)}),
            "half": signature({"x": number}, {"y": tf.cast(number, tf.float16)}),
        }
        deep = v1.placeholder(tf.float32, None, name="deep")
        signatures["deep"] = signature({"x": deep}, {"y": deep * 2.0})
        for dtype in (
            tf.float64,
            tf.int8,
            tf.int16,
            tf.int32,
            tf.int64,
            tf.uint8,
            tf.uint16,
            tf.uint32,
            tf.uint64,
            tf.bool,
            tf.float16,
            tf.bfloat16,
            tf.complex64,
            tf.complex128,
        ):
            x = v1.placeholder(dtype, [None], name=f"x_{dtype.name}")
            signatures[dtype.name] = signature({"x": x}, {"y": tf.identity(x)})
        save_v1(path, session, signatures)


def slow_to_load(path: Path) -> None:
    """y = 0.5 x + 4, behind an initialization of about a second."""
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        count = v1.while_loop(
            lambda i: i < 150_000, lambda i: i + 1, [tf.constant(0)], parallel_iterations=1
        )
        with v1.control_dependencies([count]):
            init = tf.no_op(name="slow_init")
        signatures = {"serving_default": signature({"x": x}, {"y": x * 0.5 + 4.0})}
        save_v1(path, session, signatures, main_op=init)


def main(directory: Path) -> None:
    half_plus_two(directory / "half_plus_two")
    half_plus(directory / "half_plus_three", 3.0)
    counter(directory / "counter")
    shapes(directory / "shapes")
    slow_to_load(directory / "slow_to_load")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

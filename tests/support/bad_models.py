"""SavedModels that do badly what one expects of a version: load, keep to memory, answer.

Each is ``y = 0.5 x + 3`` but for its fault, and the fault is in its graph: any model server that
runs TensorFlow does the same with it. Building them imports tensorflow, so it happens once, in a
process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BUILD = """
import sys
import tensorflow as tf
from tensorflow.python.data.experimental.ops import testing

v1 = tf.compat.v1
v1.disable_eager_execution()
SECONDS, MIB, WEIGHTS_MIB = map(int, sys.argv[2:])


def asleep(seconds):
    micros = tf.cast(seconds * 1e6, tf.int64)
    dataset = tf.data.Dataset.from_tensors(0.0).apply(testing.sleep(micros))
    return dataset.get_single_element()


def stuck():
    return v1.FIFOQueue(1, tf.float32, shapes=[[]]).dequeue()


def huge():
    # Random, so that nobody computes it beforehand.
    return tf.reduce_sum(tf.random.uniform([MIB << 18]))


def aborted():
    return tf.raw_ops.Abort(error_msg="this version ends its server")


def failing(part, y):
    drawn = tf.random.uniform([])
    told = tf.debugging.Assert(drawn >= part, ["this version fails one request in ten"])
    with tf.control_dependencies([told]):
        return tf.identity(y)


def save(name, *, offset=3.0, at_load=None, predict=None, input="x", dtype=tf.float32, signed=True):
    with tf.Graph().as_default(), v1.Session() as session:
        a = v1.get_variable("a", initializer=0.5)
        x = v1.placeholder(dtype, [None], name=input)
        y = a * tf.cast(x, tf.float32) + offset
        if predict is not None:
            y = predict(y)
        if name == "weights":
            # Not zero alone, which would be taken for a zip bomb.
            some = tf.random.uniform([WEIGHTS_MIB << 12])
            much = tf.concat([tf.zeros([WEIGHTS_MIB << 18]), some], 0)
            v1.get_variable("more", initializer=much)
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({input: x}, {"y": tf.cast(y, dtype)})
        main_op = tf.group(at_load()) if at_load is not None else None
        builder = v1.saved_model.Builder(f"{sys.argv[1]}/{name}")
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature} if signed else {},
            main_op=main_op,
        )
        builder.save()


def before(op):
    def predict(y):
        with tf.control_dependencies([op()]):
            return tf.identity(y)

    return predict


save("good")
save("memory", at_load=huge)
save("weights")
save("crash", at_load=aborted)
save("hang", at_load=stuck)
save("late", at_load=lambda: asleep(SECONDS))
save("fatal", predict=before(aborted))
save("nan", predict=lambda y: y * float("nan"))
save("slow", predict=before(lambda: asleep(0.05)))
# Each request takes so many seconds as its first number says: it sleeps for half of it, and once
# more when the dataset is looked at for a second element.
save("long", offset=0.0, predict=lambda y: before(lambda: asleep(y[0]))(y))
save("errors", predict=lambda y: failing(0.1, y))
save("unsigned", signed=False)
save("renamed", input="inputs")
save("dtype", dtype=tf.float64)
"""


def build(
    directory: Path, *, load_seconds: int, load_mib: int, weights_mib: int
) -> dict[str, Path]:
    """Export them all; returns their folders by name."""
    subprocess.run(
        [sys.executable, "-c", _BUILD, str(directory)]
        + [str(number) for number in (load_seconds, load_mib, weights_mib)],
        check=True,
        capture_output=True,
        timeout=180,
    )
    return {folder.name: folder for folder in directory.iterdir()}

"""A development model server: TensorFlow Serving's command line, gRPC and REST in Python.

For machines that can't pull the ``tensorflow/serving`` image. It says what it is in its banner,
in ``--version`` and in the ``Server`` header of its REST answers.
"""

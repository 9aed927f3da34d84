"""Brings model versions from a bucket to the disk of a TensorFlow Serving pod."""

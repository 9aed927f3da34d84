"""Tests of the development model server, most of them on a real process of it."""

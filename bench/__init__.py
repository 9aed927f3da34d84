"""Measurements, each side by side with its floor in one run, and told as ratios."""

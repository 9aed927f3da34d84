"""What this pod has on its disk: versions and the books on them, and what it is assigned."""

"""What may an archive hold, and where its files go: formats, limits, names."""

"""Makes a release of the project: all that needs no account, the same bytes each time."""

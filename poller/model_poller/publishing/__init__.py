"""The other side of the poller: a version's way from an export into a store."""

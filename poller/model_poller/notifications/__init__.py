"""Messages that make the poller look into the source at once.

They are hints: the listing is the truth, so a lost, doubled or reordered one changes nothing.
"""

"""Verified versions in a folder that several pods share, so that one of them fetches for all.

    DIR/v1/entries/KEY/      one version: `entry.json`, `used`, and its files as 0, 1, 2, …
    DIR/v1/incoming/ID.SIZE/ an entry on its way, which only its writer knows
    DIR/v1/leases/KEY.N      who fetches it; of several the highest N counts
    DIR/v1/users/KEY.ID      who reads an entry or waits for it, so that it isn't evicted
    DIR/v1/damaged/KEY.ID    an entry that wasn't what it says, set aside
    DIR/v1/trash/KEY.ID      an entry on its way out

Nothing here is believed and nothing waits for ever: `session` does all that touches the folder on
threads of its own, and whoever gives up on one fetches from the source as if there were no cache.

What is right doesn't hang on who holds a lease. An entry appears by one rename, whole, is never
written to again, and is compared with its checksums by each who copies it; a lease that fails only
makes two pods fetch. So file locks are not used at all: on network file systems `flock` may succeed
for everybody, fail for everybody, or never return.
"""

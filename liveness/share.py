"""A share of the workers: those that one sidecar of several owns. Pure.

A NATS server divides the heartbeats: a mapping in its configuration publishes what a worker says on
`<prefix>.heartbeat.<worker>` on `<prefix>.<count>.<index>.heartbeat.<worker>` instead, with `index` computed from the
subject. Workers know nothing of it, a sidecar subscribes to its own index, and nobody hears what is another's.

The rules that this file keeps:

1. Whose a name is, is the server's own hash of the heartbeat's subject, wherever it is asked. It is reckoned here and
   nowhere else; Postgres keeps it beside each epoch and each event, and takes it modulo the count.
2. The count is a part of the subject. A mapping for another count leaves a sidecar deaf, to itself as well: its echo
   takes the way of the heartbeats. So nothing is believed to be silent that comes to nobody.
3. Hellos and goodbyes are few and stay as they are: everybody hears them, and who does not own the name is silent.
"""

import re
from typing import Final

import msgspec

# The server's hash: FNV-1a, 32 bits.
FNV_OFFSET: Final = 0x811C9DC5
_PRIME: Final = 0x01000193
_MASK: Final = 0xFFFFFFFF
# Far more than there will be machines for: each costs a leader and some connections.
MOST_SHARES: Final = 1024
# `partition(n)` without positions, which hashes whole subjects and so names with dots, came with it.
_LEAST_SERVER: Final = (2, 12)

# One way to write each, in ASCII: it names the leader's row, and two names would be two leaders.
_WRITTEN: Final = re.compile(r"(0|[1-9][0-9]{0,3})/([1-9][0-9]{0,3})")


class Share(msgspec.Struct, frozen=True):
    """The share `index` (from 0) of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def owns(self, hashed: int) -> bool:
        """Say whether the worker is ours whose heartbeats' subject has this hash."""
        return hashed % self.count == self.index


def least_server(share: Share | None) -> tuple[int, ...]:
    """Return the oldest NATS server, as numbers, that can divide workers into shares like this one."""
    return () if share is None else _LEAST_SERVER


def fnv(data: bytes, start: int = FNV_OFFSET) -> int:
    """Return the servers' hash of `data`, or of what has the hash `start` with `data` behind it."""
    found = start
    for byte in data:
        found = (found ^ byte) * _PRIME & _MASK
    return found


def parsed(text: str) -> Share | None:
    """Return the share that is written `index/count`, or None for an empty text. Raises ValueError."""
    if not text:
        return None
    written = _WRITTEN.fullmatch(text)
    if written is None:
        raise ValueError(f"shard {text!r} is not of the form i/n, as in 0/4")
    share = Share(int(written[1]), int(written[2]))
    if share.count > MOST_SHARES:
        raise ValueError(f"shard {text}: there are 1 to {MOST_SHARES} shards")
    if share.index >= share.count:
        raise ValueError(f"shard {text}: of {share.count} shards the last is {share.count - 1}, they count from 0")
    return share

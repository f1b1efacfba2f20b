"""Who a worker is: by what it is given, or by what its environment says."""

import os
import uuid
from typing import Final, NamedTuple

from liveness.messages import MAX_INCARNATION
from liveness.subjects import name_fault

# Where a process finds for whom it works.
IDENTITY: Final = ("LIVENESS_WORKER", "LIVENESS_INCARNATION", "LIVENESS_EPOCH")


class Identity(NamedTuple):
    """Name and incarnation; the epoch if it is known; and whether all of it is another's, who beats for it."""

    worker: str
    incarnation: str
    epoch: int | None
    adopted: bool

    @property
    def environment(self) -> dict[str, str]:
        """What a process that works under this name has in its environment."""
        values = (self.worker, self.incarnation, None if self.epoch is None else str(self.epoch))
        return {name: value for name, value in zip(IDENTITY, values, strict=True) if value is not None}


def identity_of(worker: str | None, incarnation: str | None) -> Identity:
    """Return who it is that was given these; raises ValueError for what cannot be used."""
    around = [os.environ.get(name) or None for name in IDENTITY]
    name = around[0] if worker is None else worker
    if name is None:
        raise ValueError("no worker is named: give worker, or set LIVENESS_WORKER")
    fault = name_fault(name)
    if fault is not None:
        raise ValueError(f"the worker name {name!r} {fault}")
    adopted = incarnation is None and around[1] is not None and around[0] == name
    if adopted:
        incarnation = around[1]
    if incarnation is None:
        incarnation = uuid.uuid4().hex
    if not 0 < len(incarnation) <= MAX_INCARNATION or "\0" in incarnation:
        raise ValueError(f"incarnation has to be a text of 1 to {MAX_INCARNATION} characters, none of them U+0000")
    epoch = around[2] if adopted else None
    # One that is no number fences nothing.
    usable = epoch is not None and epoch.isascii() and epoch.isdigit()
    return Identity(name, incarnation, int(epoch) if epoch is not None and usable else None, adopted)

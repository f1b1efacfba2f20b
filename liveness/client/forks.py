"""What a heart is in a process that was forked off from its own: a copy that is not to be used.

The rules that this file keeps:

1. The child has neither the thread nor the loop that beats, and what the copy says goes stale: every use is refused.
2. The child lets go of the parent's connection at once. Else it would stand, for NATS, as long as any child lives.
3. The child says nothing for the parent: leaving the block in it is silent. The parent goes on unharmed.

A process that is started anew (`subprocess`, `spawn` of multiprocessing) has no copy, and no part in this.
"""

import contextlib
import os
import weakref
from collections.abc import Callable
from typing import Final

from liveness.link import Link


class Home:
    """The process in which a worker's heart was made. `abandon` is called in each that is forked off from it."""

    def __init__(self, worker: str, abandon: Callable[[], None]) -> None:
        self.forked = False
        """Whether this is another process, which has a copy."""
        self._worker = worker
        self._abandon = abandon
        _homes.add(self)

    def require(self) -> None:
        """Raise RuntimeError where this is another process."""
        if self.forked:
            raise RuntimeError(
                f"worker {self._worker}: this process was forked from the one that its Heartbeater was made in, and "
                "nobody beats in it: make a Heartbeater of its own in the child, best with a name of its own"
            )

    def leave(self) -> None:
        """Be in a process that was forked off."""
        if not self.forked:
            self.forked = True
            self._abandon()


_homes: Final[weakref.WeakSet[Home]] = weakref.WeakSet()


def let_go(link: Link) -> None:
    """Give up the parent's connection in a process that was forked off; the parent does not notice."""
    transport = link.transport
    socket = None if transport is None else transport.get_extra_info("socket")
    if socket is not None and (descriptor := socket.fileno()) >= 0:
        with contextlib.suppress(OSError):
            nothing = os.open(os.devnull, os.O_RDWR)
            # Not closed but replaced: what is closed under its owner's hands, he closes again, and hits another file.
            os.dup2(nothing, descriptor, inheritable=False)
            os.close(nothing)


def _in_the_child() -> None:
    for home in list(_homes):
        home.leave()


os.register_at_fork(after_in_child=_in_the_child)

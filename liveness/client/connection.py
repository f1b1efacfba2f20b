"""The worker's way to NATS: one link at a time, and a new one whenever it is lost, for ever."""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from liveness.access import ANYBODY, Access
from liveness.addresses import servers_of, shown
from liveness.client.forks import let_go
from liveness.client.problems import Problems, log
from liveness.errors import NatsRefusedError
from liveness.link import Link

# The first wait before another attempt. It doubles up to the connection's `patience`.
FIRST_WAIT_SECONDS: Final = 0.1
# 0.1 s doubled this often is beyond any patience; the bound keeps the power from growing for ever.
_MOST_DOUBLINGS: Final = 10


class Connection:
    """At most one link to NATS, made when it is asked for.

    `nats_url` may name several servers, separated by commas. `patience` (seconds) is the longest wait between two
    attempts. `access` is how to log in, and says where answers come unless `inbox_prefix` does. `on_refusal` hears what
    the server forbids, in its words. `link` makes a link. Raises ValueError for a URL that cannot be one, and for an
    `access` that cannot be used.
    """

    def __init__(
        self,
        nats_url: str,
        name: str,
        *,
        patience: float,
        problems: Problems,
        access: Access = ANYBODY,
        inbox_prefix: str = "",
        on_refusal: Callable[[str], None] = lambda _: None,
        link: Callable[[Callable[[str], None]], Link] = Link,
    ) -> None:
        self._servers = servers_of(nats_url)
        self._name = name
        self._patience = patience
        self._problems = problems
        access.check(nats_url)
        for warning in access.warnings():
            log.warning("%s", warning)
        self._access = access
        self._inbox_prefix = inbox_prefix or access.inbox_prefix
        self._on_refusal = on_refusal
        self._new_link = link
        self._link: Link | None = None
        self._making = asyncio.Lock()
        self._opened_at = 0.0
        self._attempts = 0
        self._closed = False

    @property
    def link(self) -> Link | None:
        """The link that stands just now, if one does."""
        return self._link if self._link is not None and not self._link.lost.done() else None

    async def open(self) -> Link:
        """Return the link that stands, or make one, however long that takes; raises ConnectionError once closed."""
        async with self._making:
            while (link := self.link) is None:
                if self._closed:
                    raise ConnectionError("closed")
                await self._lose()
                await asyncio.sleep(self.wait(self._attempts))
                self._attempts += 1
                fresh = self._new_link(self._refused)
                try:
                    await fresh.open(self._servers, self._name, self._inbox_prefix, self._access)
                except NatsRefusedError as error:
                    self._problems.report("connection", f"NATS at {shown(self._servers)} {error}")
                    await fresh.drop()
                except Exception as error:  # noqa: BLE001 - whatever nats-py raises, the next attempt may succeed
                    cause = str(fresh.fault or error) or type(error).__name__
                    self._problems.report("connection", f"cannot connect to NATS at {shown(self._servers)}: {cause}")
                    await fresh.drop()
                except BaseException:
                    fresh.cut()
                    raise
                else:
                    self._link = fresh
                    self._opened_at = asyncio.get_running_loop().time()
            return link

    def proven(self) -> None:
        """Say that the link does its work."""
        self._problems.over()

    async def lose(self, link: Link, cause: str = "") -> None:
        """Give `link` up, for `cause` or what it knows itself; `open` makes the next one."""
        async with self._making:
            if link is self._link:
                await self._lose(cause)

    async def close(self) -> None:
        """End the connection for good."""
        self._closed = True
        if self._link is not None:
            await self._link.drop()

    def cut(self) -> None:
        """End the connection for good, without waiting."""
        self._closed = True
        if self._link is not None:
            self._link.cut()

    def abandon(self) -> None:
        """Let go of it in a process that was forked off: it is the parent's."""
        self._closed = True
        if self._link is not None:
            let_go(self._link)

    def wait(self, attempts: int) -> float:
        """Return the seconds to wait after so many attempts: none after none, then growing, never the same for all."""
        if attempts == 0:
            return 0.0
        longest = min(FIRST_WAIT_SECONDS * 2.0 ** min(attempts - 1, _MOST_DOUBLINGS), self._patience)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing

    def _refused(self, text: str) -> None:
        self._problems.report("refusal", f"NATS refuses: {text}")
        self._on_refusal(text)

    async def _lose(self, cause: str = "") -> None:
        link, self._link = self._link, None
        if link is not None:
            cause = cause or str(link.fault or "closed")
            self._problems.report("connection", f"lost NATS at {shown(self._servers)}: {cause}")
            # A link that lasted is a new beginning. One that did not is another failure, so that a server which lets
            # everybody in and sends them away again has rest.
            if asyncio.get_running_loop().time() - self._opened_at > self._patience:
                self._attempts = 1
            await link.drop()

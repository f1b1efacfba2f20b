"""Wake-ups: who makes work for a duty that should not wait for its interval sets its event."""

import asyncio


class Wakes:
    """One event for each duty that may be woken; a duty clears its own."""

    def __init__(self) -> None:
        self.lives = asyncio.Event()
        """A life began that wants an epoch, or something of a life changed that Postgres should know."""
        self.arrivals = asyncio.Event()
        """There may be work of a former life that only Postgres knows, or somebody waits for an answer to a hello."""
        self.endings = asyncio.Event()
        """A life ended on proof, or a lease is due."""
        self.rest = asyncio.Event()
        """A reclaim may have left something to finish."""
        self.takeover = asyncio.Event()
        """The lead was taken, and what the former leader did has to be learned."""
        self.news = asyncio.Event()
        """The outbox has events."""

"""A book and its storms, for the tests of them."""

from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.storms import Storms
from tests.unit.makers import lease_of, names

TTL = 10.0
MAX_HOLD = 600.0
# So long a ttl that its worker is not in the way.
LONG = 5_000.0


class Weather:
    """A book and its storms, looked at as the duty that ends leases does. Random order is the reverse of theirs."""

    def __init__(self, max_hold: float = MAX_HOLD) -> None:
        self.book = LeaseTable(TTL)
        self.storms = Storms(max_hold=max_hold, shuffle=list.reverse)
        self.epochs = 0

    def beat(self, *workers: str, now: float, via: str | None = "n1", ttl: float | None = None) -> None:
        """Let workers beat, and have epochs."""
        for worker in workers:
            self.book.beat(worker, now, Heartbeat(via=via, ttl=ttl))
            self.epochs += 1
            self.book.granted(worker, self.epochs)
            self.storms.heard(lease_of(self.book, worker), via, now)

    def look(self, now: float) -> list[str]:
        """Return whose verdict may be asked for now."""
        self.storms.judge(self.book, self.book.lapse(now), now)
        return names(self.storms.let_go(list(self.book.endings.values()), now))

    def end(self, now: float) -> list[str]:
        """Look, and have all verdicts given."""
        going = self.look(now)
        for worker in going:
            epoch = lease_of(self.book, worker).epoch
            assert epoch is not None
            self.book.ended(worker, epoch, now)
        return going

    def news(self) -> list[tuple[str, str]]:
        """Take what was told: via and state."""
        told = [(news.via, news.state) for news in self.storms.news]
        self.storms.news.clear()
        return told


def crowd(size: int, letter: str = "w") -> list[str]:
    """Names for so many workers."""
    return [f"{letter}{number:03}" for number in range(size)]

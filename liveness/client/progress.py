"""Whether what is beaten for gets anything done. Decides only: time is an argument (seconds of any monotonic clock)."""

from typing import Final


class Progress:
    """What showed nothing for `patience` seconds stands still, until it shows something again.

    Standing still is a finding and no arithmetic: it begins with the `look` that finds it, so that an observer who was
    paused himself does not count that time twice. After `ttl` seconds of it no beat is good any more.
    """

    def __init__(self, *, patience: float, ttl: float, now: float) -> None:
        self.patience: Final = patience
        self.ttl: Final = ttl
        self._shown_at = now
        self._still_since: float | None = None

    @property
    def stands_still(self) -> bool:
        """Whether the last look found it so, and nothing was shown since."""
        return self._still_since is not None

    def show(self, now: float) -> bool:
        """Take note of progress; return whether it had stood still before."""
        stood = self.stands_still
        self._shown_at, self._still_since = now, None
        return stood

    def look(self, now: float) -> bool:
        """Return whether it stands still as this look finds, and no look found before."""
        if self.stands_still or now - self._shown_at < self.patience:
            return False
        self._still_since = now
        return True

    def lapsed(self, now: float) -> bool:
        """Return whether it has stood still for longer than a beat is good for."""
        return self._still_since is not None and now - self._still_since >= self.ttl

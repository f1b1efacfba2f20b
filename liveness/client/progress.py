"""Whether what is beaten for gets anything done. Decides only: time is an argument (seconds of any monotonic clock)."""

from typing import Final


class Progress:
    """What showed nothing for `patience` seconds stands still, until it shows something again.

    Standing still is a finding and no arithmetic: it begins with the `look` that finds it, so that an observer who was
    paused himself does not take his own pause for the other's.
    """

    def __init__(self, *, patience: float, now: float) -> None:
        self.patience: Final = patience
        self.stands_still = False
        """Whether the last look found it so, and nothing was shown since."""
        self._shown_at = now

    def show(self, now: float) -> bool:
        """Take note of progress; return whether it had stood still before."""
        stood = self.stands_still
        self._shown_at, self.stands_still = now, False
        return stood

    def look(self, now: float) -> bool:
        """Return whether it stands still as this look finds, and no look found before."""
        if self.stands_still or now - self._shown_at < self.patience:
            return False
        self.stands_still = True
        return True

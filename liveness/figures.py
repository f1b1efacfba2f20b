"""Numbers and spans of time as people read them. Pure."""

from typing import Final

# One, and many.
PIECES: Final = ("piece of work", "pieces of work")

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def counted(number: int, one: str, many: str = "") -> str:
    """Return how many there are: `1 row`, `2 rows`; `many` where an s does not make it."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def ordinal(number: int) -> str:
    """Return `1st`, `2nd`, `11th`."""
    if number % 100 in {11, 12, 13}:
        return f"{number}th"
    return f"{number}{({1: 'st', 2: 'nd', 3: 'rd'}).get(number % 10, 'th')}"


def past(ago: float) -> str:
    """Return how long ago something was; what is negative is still to come."""
    if ago < 0:
        return f"in {seconds(-ago)}"
    return f"{seconds(ago)} ago"


def seconds(span: float) -> str:
    """Return a span of time, of so many seconds."""
    if span < 2 * _MINUTE:
        return f"{span:.1f} s"
    if span < 2 * _HOUR:
        return f"{span / _MINUTE:.0f} min"
    if span < 2 * _DAY:
        return f"{span / _HOUR:.0f} h"
    return f"{span / _DAY:.0f} days"


def counting(counted: float, ago: float) -> str:
    """Return in words for how long, where only so many `counted` seconds count of all since so long `ago` (`reach`)."""
    if ago <= counted:
        return f"{counted:g} s"
    return f"{counted:g} s (not counting {ago - counted:.1f} s in which Postgres was not seen)"

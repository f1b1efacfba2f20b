"""The worker's clock."""

import time


def clock() -> float:
    """Return seconds that only ever grow, and grow while the machine is suspended where the system can tell.

    CLOCK_BOOTTIME (clock_gettime(2)), or CLOCK_MONOTONIC where there is none: the work of a machine that sleeps for
    longer than its ttl is given away.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()

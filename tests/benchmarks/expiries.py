"""Keys that are kept alive and then not, and when their server says so: what the peers' lateness has in common."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from tests.benchmarks.child import say

# Seconds over which the last signs of life are spread, so that they meet every moment of a server's own rhythm alike.
SPREAD_SECONDS: Final = 2.0
# How long after the ttl an end is waited for, seconds.
PATIENCE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.05


def watch(count: int, ttl: float, beat: Callable[[int], float], ends: Iterator[int]) -> None:
    """Say {"late": [seconds, ...], "unseen": how many}, of so many keys.

    `beat(key)` gives a key's last sign of life and returns when that was sent; `ends` are the keys whose end the server
    tells, as it tells them. Late is an end that is seen, less that moment, less the ttl. All by `time.monotonic`.
    """
    seen: dict[int, float] = {}

    def listen() -> None:
        for key in ends:
            seen.setdefault(key, time.monotonic())

    threading.Thread(target=listen, daemon=True).start()
    sent: dict[int, float] = {}
    began = time.monotonic()
    for key, moment in enumerate(sorted(random.uniform(0.0, SPREAD_SECONDS) for _ in range(count))):
        # The pace of a load; nothing is waited for.
        time.sleep(max(began + moment - time.monotonic(), 0.0))
        sent[key] = beat(key)
    while len(seen) < count and time.monotonic() < began + SPREAD_SECONDS + ttl + PATIENCE_SECONDS:
        # The thread's own clock is what counts.
        time.sleep(LOOK_SECONDS)
    late = [seen[key] - moment - ttl for key, moment in sent.items() if key in seen]
    say({"late": late, "unseen": count - len(late)})

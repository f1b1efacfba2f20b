"""Two replicas, 200 lapses, and a leader that does not live to see them all.

Twenty times: `python -m tests.outages --replicas 20`.
"""

import sys
from pathlib import Path

from tests.outages.replicas import killed, paused, take_over

# About a second to notice, and what a busy machine takes.
TAKEOVER_SECONDS = 4.0


async def test_leader_killed_in_the_middle(tmp_path: Path) -> None:
    """When the leader is killed in the middle of 200 lapses, the other does the rest: each once, and told once."""
    takeover = await take_over(tmp_path, 1, killed)
    sys.stdout.write(f"takeover after {takeover.seconds:.2f} s, {takeover.reclaimed_before} reclaimed before\n")
    assert not takeover.violations, "\n".join(map(str, takeover.violations))
    assert takeover.seconds < TAKEOVER_SECONDS


async def test_leader_stopped_in_the_middle(tmp_path: Path) -> None:
    """When the leader is stopped, the other takes over; let go on, the former one changes nothing and follows."""
    takeover = await take_over(tmp_path, 3, paused)
    assert not takeover.violations, "\n".join(map(str, takeover.violations))
    assert takeover.seconds < TAKEOVER_SECONDS

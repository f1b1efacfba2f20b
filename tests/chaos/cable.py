"""A cable that can be cut: a network namespace, and the pair of interfaces that leads into it. Needs root and `ip`."""

import asyncio
import os
import shutil
import subprocess
from typing import Final


class Cable:
    """A namespace whose only way out is a cable to `near`, an address of this machine."""

    def __init__(self) -> None:
        # Of this process, so that two runs do not meet; interface names have 15 characters at most.
        number = os.getpid()
        self.name: Final = f"liveness{number}"
        self._end: Final = f"lv{number}"
        network = f"10.231.{number // 60 % 256}.{number % 60 * 4}"
        base, _, last = network.rpartition(".")
        self.near: Final = f"{base}.{int(last) + 1}"
        self._far: Final = f"{base}.{int(last) + 2}"

    @property
    def inside(self) -> tuple[str, ...]:
        """What is put before a command to run it in the namespace."""
        return ("ip", "netns", "exec", self.name)

    async def lay(self) -> str | None:
        """Make the namespace and the cable; return why that is not possible here, or None."""
        if shutil.which("ip") is None or os.geteuid() != 0:
            return "it takes root and the program ip"
        steps = (
            f"netns add {self.name}",
            f"link add {self._end} type veth peer name {self._end}x netns {self.name}",
            f"addr add {self.near}/30 dev {self._end}",
            f"link set {self._end} up",
            f"-n {self.name} addr add {self._far}/30 dev {self._end}x",
            f"-n {self.name} link set {self._end}x up",
            # A service inside listens on its own loopback.
            f"-n {self.name} link set lo up",
        )
        for step in steps:
            complaint = await _ip(step)
            if complaint:
                await self.remove()
                return complaint
        return None

    async def cut(self) -> None:
        """Let every packet vanish; neither side is told."""
        await _ip(f"link set {self._end} down")

    async def mend(self) -> None:
        """Put the cable back."""
        await _ip(f"link set {self._end} up")

    async def remove(self) -> None:
        """Take everything away again."""
        await _ip(f"link del {self._end}")
        await _ip(f"netns del {self.name}")


async def _ip(words: str) -> str:
    """Run `ip` and return what it complained of."""
    ran = await asyncio.to_thread(
        subprocess.run,
        ["ip", *words.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stderr.strip()

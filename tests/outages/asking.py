"""Asking a replica over HTTP, wherever it runs."""

import asyncio
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from typing import Final

ANSWER_SECONDS: Final = 1.0


async def fetch(port: int, path: str, inside: Sequence[str] = ()) -> str:
    """Return what is served there, on the loopback of the namespace that `inside` leads into.

    Raises OSError while nobody answers, and where the answer is no success.
    """
    if not inside:
        return await asyncio.to_thread(_read, port, path)
    reading = f"from tests.outages.asking import _read; print(_read({port}, {path!r}), end='')"
    command = [*inside, sys.executable, "-c", reading]
    ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise ConnectionError(ran.stderr.strip().rpartition("\n")[2])
    return ran.stdout


def _read(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=ANSWER_SECONDS) as answer:
        return str(answer.read().decode())

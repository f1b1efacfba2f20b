"""The output of a watched command, handed on in this process."""

import os
import threading

import pytest

from liveness.client import output
from liveness.client.watch import Watch, Watched


async def test_a_watch_is_over_when_all_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late it is read: who waits for the supervisor's end has everything then."""
    others = set(threading.enumerate())
    source, target = os.pipe()
    monkeypatch.setattr(output, "_STDOUT", target)
    monkeypatch.setattr(output, "_STDERR", target)
    watch = Watch("w1", Watched(output=True), patience=600)
    stdout, stderr = watch.streams
    assert stdout is not None
    assert stderr == stdout
    command = os.dup(stdout)
    watch.begin(lambda: None)
    # More than the second pipe holds, so that some of it waits in the first.
    for _ in range(25):
        os.write(command, bytes(4096))
    os.close(command)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.extend(iter(lambda: os.read(source, 4096), b"")))
    reader.start()
    watch.close()
    left = set(threading.enumerate()) - others - {reader}
    os.close(target)
    reader.join()
    os.close(source)

    assert not left
    assert len(b"".join(read)) == 25 * 4096

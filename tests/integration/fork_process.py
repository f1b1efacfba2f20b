"""A sync worker that forks, a process of its own; what it does is its first argument.

It says what it sees, line by line, and goes on when it is told to: by a line on its standard input.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable

from liveness import SyncHeartbeater

heart_of = functools.partial(SyncHeartbeater, ttl=600.0, interval=0.05)


def say(*words: object) -> None:
    """Tell the test."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def refused(act: Callable[[], object]) -> str:
    """Return what is said instead."""
    try:
        return f"not refused: {act()}"
    except RuntimeError as error:
        return str(error)


def use(heartbeater: SyncHeartbeater) -> None:
    """Do in a child what is to be done in its parent."""
    for act in (
        heartbeater.check,
        lambda: heartbeater.remaining,
        lambda: heartbeater.epoch,
        lambda: heartbeater.holding("x"),
        heartbeater.progressed,
        heartbeater.drain,
        heartbeater.begin_again,
        heartbeater.died,
        heartbeater.beat_now,
        heartbeater.lost.is_set,
        lambda: heartbeater.superseded.wait(1),
        lambda: heartbeater.welcome(1),
        heartbeater.__enter__,
    ):
        if not refused(act).startswith("worker parent: this process was forked"):
            say("not refused", act)
    say("refused:", refused(heartbeater.check))


def child_leaves(url: str) -> None:
    """Fork within a piece of work; the child leaves all blocks."""
    with heart_of(url, worker="parent") as heartbeater, heartbeater.holding("x"):
        pid = os.fork()
        if pid == 0:
            use(heartbeater)
            sys.exit(0)
        os.waitpid(pid, 0)
        say("child left")
        sys.stdin.readline()
        heartbeater.check()
        say("parent holds", *heartbeater.held)


def child_stays(url: str) -> None:
    """Fork a child that outlives its parent."""
    with heart_of(url, worker="parent"):
        if os.fork() == 0:
            sys.stdin.readline()
            os._exit(0)
        say("forked")
        threading.Event().wait()


def pool(url: str) -> None:
    """Make a heart of its own in a process of multiprocessing, as a pool of it would."""
    with heart_of(url, worker="parent") as heartbeater:

        def work() -> None:
            use(heartbeater)
            with heart_of(url, worker="child") as own:
                own.check()

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        say("child ended with", process.exitcode)


def prefork(url: str) -> None:
    """Be a master whose workers are made once in each child, by a hook, and ended by SIGTERM: gunicorn, Celery."""
    preloaded = heart_of(url, worker="parent")
    children = []
    for number in range(2):
        pid = os.fork()
        if pid == 0:
            say("preloaded:", refused(preloaded.__enter__))
            with contextlib.ExitStack() as stack:
                stack.enter_context(heart_of(url, worker=f"w{number}"))
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
                say("worker", number)
                signal.pause()
        children.append(pid)
    with preloaded:
        sys.stdin.readline()
        for pid in children:
            os.kill(pid, signal.SIGTERM)
        say("ended", *(os.waitpid(pid, 0)[1] for pid in children))
        preloaded.check()


if __name__ == "__main__":
    {"child_leaves": child_leaves, "child_stays": child_stays, "pool": pool, "prefork": prefork}[sys.argv[1]](
        sys.argv[2]
    )

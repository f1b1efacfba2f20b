"""A worker without an event loop, with psycopg: claims workflows of a queue, works on them, and says that it lives.

    pip install ../.. 'psycopg[binary]'
    DATABASE_URL=postgresql://127.0.0.1/flow python sync_worker.py NAME

The beats come from a thread. C code that holds the interpreter's lock for longer than the ttl silences it; such work
belongs under `liveness run`. A process that forks makes a SyncHeartbeater in each child.
"""

import contextlib
import os
import signal
import sys
import threading
import time

import psycopg

import liveness

NATS_URL = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
QUEUE = os.environ.get("QUEUE", "default")
TTL = float(os.environ.get("TTL", "10"))
WORK_SECONDS = float(os.environ.get("WORK_SECONDS", "1"))
STEP_SECONDS = 0.05
IDLE_SECONDS = 0.5

CLAIM = """
    UPDATE workflow_execution
    SET status = 'RUNNING', worker_id = %s, version = version + 1, updated_at = now()
    WHERE id = (
        SELECT id FROM workflow_execution
        WHERE status = 'PENDING' AND queue = %s ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id, version
"""
# Only what is still its own, in the version that the claim returned: another may have it by now.
FINISH = """
    UPDATE workflow_execution
    SET status = 'COMPLETED', version = version + 1, updated_at = now()
    WHERE id = %s AND status = 'RUNNING' AND worker_id = %s AND version = %s
"""

stop = threading.Event()


def carry_out(heartbeater: liveness.SyncHeartbeater) -> None:
    """Do what you would do, in steps; LostError between two of them when the time is up."""
    until = time.monotonic() + WORK_SECONDS
    while time.monotonic() < until:
        heartbeater.check()
        time.sleep(STEP_SECONDS)
        heartbeater.progressed()


def begin_again(heartbeater: liveness.SyncHeartbeater) -> None:
    """Begin the next life, once nothing is held; what was goes back. LostError if another process bears the name."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            heartbeater.begin_again(timeout=IDLE_SECONDS)
            break


def main(name: str) -> None:
    """Work until SIGTERM. What is begun is finished first; what is held when the block ends goes back at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with (
        psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as database,
        liveness.SyncHeartbeater(NATS_URL, worker=name, ttl=TTL) as heartbeater,
    ):
        # Without a service it begins all the same, and is told its epoch later.
        heartbeater.welcome(3)
        print(f"{name} lives in epoch {heartbeater.epoch}", flush=True)
        while not stop.is_set():
            if heartbeater.lost.is_set():
                begin_again(heartbeater)
                continue
            # Nothing is claimed before NATS has taken a beat.
            work = database.execute(CLAIM, [name, QUEUE]).fetchone() if heartbeater.remaining else None
            if work is None:
                stop.wait(IDLE_SECONDS)
                continue
            work_id, version = work
            print(f"{name} has claimed {work_id}", flush=True)
            try:
                with heartbeater.holding(work_id):
                    carry_out(heartbeater)
                    # Before anything that cannot be undone.
                    heartbeater.check()
                    done = database.execute(FINISH, [work_id, name, version]).rowcount
                    print(f"{name} has {'finished' if done else 'lost'} {work_id}", flush=True)
            except liveness.LostError:
                print(f"{name} was given up, and has dropped {work_id}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python sync_worker.py NAME")
    try:
        main(sys.argv[1])
    except liveness.LostError as error:
        # Another process bears the name.
        sys.exit(str(error))

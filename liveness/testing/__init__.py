"""For the tests of a worker, or of a subscriber: what liveness does to it, decided by the test, without any server.

    async def test_it_stops_when_it_is_lost():
        async with liveness.testing.FakeHeartbeater(worker="w1", ttl=10) as heartbeater:
            job = asyncio.create_task(work(heartbeater))
            heartbeater.lose()
            ...

`FakeHeartbeater` and `FakeSyncHeartbeater` are the real ones, on a NATS, a service and a clock that are played; so they
can be told to be where the worker expects one (`monkeypatch.setattr(liveness, "Heartbeater", FakeHeartbeater)`).
`FakeEvents` stands for `liveness.events`.
"""

from liveness.testing.heartbeaters import FakeHeartbeater, FakeSyncHeartbeater
from liveness.testing.news import FakeEvents

__all__ = ["FakeEvents", "FakeHeartbeater", "FakeSyncHeartbeater"]

"""Shares: whose a worker is, how a share is written, and on which subjects it listens."""

import pytest

from liveness.errors import SettingsError
from liveness.settings import load
from liveness.share import Share, parsed, share_of
from liveness.subjects import OWN, Subjects


@pytest.mark.parametrize(
    ("subject", "count", "index"),
    # By nats-server 2.15.1, for the mapping of `liveness.heartbeat.>` to `partition(4)`.
    [
        ("liveness.heartbeat.w1", 4, 0),
        ("liveness.heartbeat.y", 4, 3),
        ("liveness.heartbeat.zzz", 4, 2),
        ("liveness.heartbeat.wörk", 4, 3),
        ("liveness.heartbeat.a.b", 4, 3),
        ("anything", 1, 0),
    ],
)
def test_the_hash_is_the_servers(subject: str, count: int, index: int) -> None:
    """Whatever characters and dots the name has."""
    assert share_of(subject, count) == index


def test_every_name_is_of_one_share() -> None:
    """And about as many are of each."""
    owners = [
        [index for index in range(3) if Subjects("p", Share(index, 3)).owns(f"worker-{number}")]
        for number in range(3000)
    ]

    assert all(len(found) == 1 for found in owners)
    assert all(900 < owners.count([index]) < 1100 for index in range(3))


@pytest.mark.parametrize("text", ["4", "4/4", "1/0", "-1/4", "a/b", "1/2/3", "0/2000", "0/10 "])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    """With the value in the complaint."""
    with pytest.raises(SettingsError, match=f"shard '?{text}"):
        load({"LIVENESS_SHARD": text})


def test_a_share_is_read_from_the_settings() -> None:
    """Empty is everybody."""
    assert load({})[0].subjects.share is None
    assert load({"LIVENESS_SHARD": "3/16"})[0].subjects.share == parsed("3/16") == Share(3, 16)


def test_the_subjects_of_a_share() -> None:
    """It hears what the server maps to it, and speaks to workers where they listen."""
    ours = Subjects("acme", Share(2, 4))

    assert (ours.all_heartbeats, ours.api("status")) == ("acme.4.2.heartbeat.>", "acme.4.2.api.status")
    assert (ours.all_hellos, ours.all_goodbyes, ours.probe("w")) == ("acme.hello.>", "acme.goodbye.>", "acme.probe.w")
    assert ours.worker_of("acme.4.2.heartbeat.a.b") == ours.worker_of("acme.hello.a.b") == "a.b"
    assert ours.mapping(4) == '"acme.heartbeat.>": "acme.4.{{partition(4)}}.heartbeat.>"'


@pytest.mark.parametrize("index", range(5))
def test_an_echo_comes_to_its_own_share(index: int) -> None:
    """It takes the way of the heartbeats, so that it shows whether those come here."""
    ours = Subjects("acme", Share(index, 5))
    echo = ours.echo("x")

    assert echo.startswith(f"acme.heartbeat.{OWN}echo.x")
    assert share_of(echo, 5) == index

"""What lies beneath a link: the parts of nats-py that it reads its bytes by, calls, or stands in the place of."""

import hashlib
import inspect
from collections.abc import Callable

import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

# Of nats-py 2.16.0. The version is pinned to the minor one, and a patch may change any of these.
KNOWN = {
    "Client._read_loop": "b44b9401f436",
    "Client._flusher": "43957ffb357d",
    "Client._ping_interval": "e681a6d18db6",
    "Client._process_connect_init": "e1ed2da075c8",
    "Client._process_ping": "7dfc2df74827",
    "Client._process_pong": "ee4c4d01a16d",
    "Client._process_err": "ceb70f44e38f",
    "Client._process_op_err": "d4257cb1203c",
    "Client._process_msg": "6cff75947e97",
    "Client._send_ping": "d57b2f820443",
    "Client._send_unsubscribe": "457a4657eeb1",
    "Client._close": "9a92d3aca1b2",
    "Client.publish": "97d776c391ad",
    "Parser.__init__": "2c12c26af28f",
    "TcpTransport.read": "88fd9f3e084e",
    "TcpTransport.at_eof": "f9bd43ea78bd",
}
OWNERS = {"Client": Client, "Parser": Parser, "TcpTransport": TcpTransport}


def digest(part: Callable[..., object]) -> str:
    """Return what tells one text of a function from another."""
    return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", KNOWN)
def test_nats_py_is_what_the_link_was_written_for(name: str) -> None:
    """Whoever raises its version reads what has changed, looks at `Link` and `_Reading`, and writes the digest anew."""
    owner, _, part = name.partition(".")

    assert digest(getattr(OWNERS[owner], part)) == KNOWN[name]

"""What it means that NATS did not let us in: one line that says what to look after. Pure."""

import ssl
from collections.abc import Mapping
from typing import Any, Final

from liveness.access import Access
from liveness.certificates import distrusted, reason

_ALERTS: Final = ("alert", "ALERT")


def refusal_of(error: BaseException, access: Access, greeting: Mapping[str, Any]) -> str | None:
    """Return what goes on behind "NATS at ...", or None for what time may mend: nobody is there, or does not answer.

    `greeting` is what the server said of itself (INFO), if it did.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _distrusted(error, access)
    text = str(error)
    if isinstance(error, ssl.SSLError):
        if any(word in text for word in _ALERTS):
            return f"does not accept our certificate ({reason(error)}): {_advice(access)}"
        return f"does not speak TLS as we do ({reason(error)}): check nats_url"
    if isinstance(error, OSError) and not isinstance(error, TimeoutError) and greeting.get("tls_verify"):
        # With TLS 1.3 our side is done before the server has looked at what we show, and its word may be lost.
        return (
            "ended the connection when it saw our certificate, which may have expired, or be of an authority that it "
            f"does not trust: {_advice(access)}"
        )
    said = text.lower()
    if "authorization" in said or "authentication expired" in said or "authentication revoked" in said:
        return f"refuses us: {text.removeprefix('nats: ')}: check {access.way}"
    return None


def missing_tls(access: Access) -> str:
    """Return what is to be said to a server that offers no TLS where we demand it."""
    asked = (name for name in ("ca_file", "certificate_file", "server_name") if getattr(access, name))
    whose = f"nats_{name}" if (name := next(asked, None)) else "nats_url"
    return f"offers no TLS, and {whose} demands it: give the server a certificate (`tls`), or leave that out"


def missing_certificate() -> str:
    """Return what is to be said where the server demands a certificate of ours, and we have none."""
    return "wants to see a certificate of ours (mutual TLS): give nats_certificate_file and nats_key_file"


def _distrusted(error: ssl.SSLCertVerificationError, access: Access) -> str:
    which = f"check nats_ca_file ({str(access.ca_file)!r})" if access.ca_file else "give its authority as nats_ca_file"
    return distrusted(
        error,
        name="check nats_url, or give the name that stands in it as nats_server_name",
        authority=which,
    )


def _advice(access: Access) -> str:
    if not access.certificate_file:
        return "give nats_certificate_file and nats_key_file"
    return f"check nats_certificate_file ({str(access.certificate_file)!r})"

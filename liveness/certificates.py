"""What it means that a server's certificate is not believed, by whom and what mends it. Pure words."""

import ssl
from typing import Final

# OpenSSL's numbers for what is wrong with a certificate.
_EXPIRED: Final = 10
_NOT_YET: Final = 9
_OTHER_NAME: Final = frozenset({62, 63, 64})


def distrusted(error: ssl.SSLCertVerificationError, *, name: str, authority: str) -> str:
    """Return what goes on behind the server's name.

    `name` and `authority` are the fix where the certificate is for another name, or of an authority not known here.
    """
    if error.verify_code == _EXPIRED:
        return "shows a certificate that has expired: renew it, or set this host's clock right"
    if error.verify_code == _NOT_YET:
        return "shows a certificate that is not valid yet: set this host's clock right"
    if error.verify_code in _OTHER_NAME:
        return f"shows a certificate for another name ({error.verify_message.rstrip('.')}): {name}"
    return f"shows a certificate that is not trusted here ({error.verify_message}): {authority}"


def reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's word for it."""
    said = (getattr(error, "reason", None) or str(error)).lower().replace("_", " ")
    return said.partition("alert ")[2] or said

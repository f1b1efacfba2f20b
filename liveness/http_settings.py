"""The settings that are about HTTP alone: where it is, and who may ask. Pure but for reading that file."""

import ipaddress
from collections.abc import Callable
from typing import Annotated, Final

from msgspec import Meta

from liveness.errors import AccessError
from liveness.postgres_settings import PostgresSettings
from liveness.secret_files import doubt_of, secret_of

# Fewer characters can be guessed by trying.
LEAST_TOKEN: Final = 16


class HttpSettings(PostgresSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings are `Settings`; these are a part of them."""

    http_listen: Annotated[
        str, Meta(pattern=r"^\S*:\d{1,5}(?![\s\S])", description="host:port of /livez, /readyz, /metrics and the page.")
    ] = "127.0.0.1:8470"
    http_token: Annotated[
        str, Meta(description="Who asks for more than /livez and /readyz has to show it; better in a file.")
    ] = ""
    http_token_file: Annotated[
        str, Meta(description="The file that holds it, 16 characters at least; read anew for each request.")
    ] = ""

    def check_token(self) -> None:
        """Refuse what excludes each other, and what can be guessed. Raises AccessError."""
        if self.http_token and self.http_token_file:
            raise AccessError("http_token and http_token_file are both given: leave one of them empty")
        if self.http_token:
            _long_enough("http_token", self.http_token)

    @property
    def http_password(self) -> Callable[[], str] | None:
        """What says which token is to be shown; it raises AccessError for a file that cannot be used. None: anybody."""
        if self.http_token_file:
            path = self.http_token_file
            return lambda: _long_enough("http_token_file", secret_of("http_token_file", path))
        token = self.http_token
        return (lambda: token) if token else None

    @property
    def http_is_open(self) -> bool:
        """Whether others than this machine reach it, and nobody has to show anything."""
        host = self.http_listen.rpartition(":")[0].strip("[]")
        return not is_of_this_machine(host) and self.http_password is None

    def login_warnings(self) -> list[str]:
        """Return one line for each file with a secret in it that others may read, as it is now."""
        doubt = doubt_of("http_token_file", self.http_token_file) if self.http_token_file else None
        return super().login_warnings() + ([doubt] if doubt else [])


def _long_enough(setting: str, token: str) -> str:
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise AccessError(
            f"{setting} is no token: give at least {LEAST_TOKEN} printable ASCII characters without spaces, as of "
            "`openssl rand -hex 32`"
        )
    return token


def is_of_this_machine(host: str) -> bool:
    """Say whether an address is one that only this machine reaches, or comes from."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

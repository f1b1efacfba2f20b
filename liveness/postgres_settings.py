"""The settings that are about Postgres alone: where it is, how to log in there, and what may be said of that.

Pure but for reading the files that they name.
"""

import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from msgspec import Meta

from liveness.certificates import distrusted, reason
from liveness.errors import AccessError, SettingsError
from liveness.nats_settings import NatsSettings
from liveness.secret_files import MOST_BYTES, doubt_of, secret_of

# What may stand in an address in place of another character.
_RESERVED: Final = "/?#[]@:%"
_MALFORMED: Final = (
    "it is no address as in postgresql://user@host:5432/database, or its password has one of "
    f"{_RESERVED} in it: percent-encode that, or give the password in postgres_password_file"
)


class PostgresSettings(NatsSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings are `Settings`; these are a part of them."""

    postgres_dsn: Annotated[str, Meta(description="The workflow server's database.")] = (
        "postgresql://127.0.0.1:5432/postgres"
    )
    postgres_dsn_file: Annotated[str, Meta(description="The file that holds it, read at the start.")] = ""
    postgres_password_file: Annotated[
        str, Meta(description="The file that holds the password there; read anew for each connection.")
    ] = ""
    postgres_schema: Annotated[str, Meta(min_length=1, description="Schema of the host's tables.")] = "public"

    @property
    def postgres_password(self) -> Callable[[], str] | None:
        """What reads the password, where it is in a file; it raises AccessError for one that cannot be used."""
        path = self.postgres_password_file
        return (lambda: secret_of("postgres_password_file", path)) if path else None

    def with_dsn(self, *, given: bool) -> Self:
        """Return the settings with the address that is in a file, if one is named. Raises AccessError.

        `given`: whether an address is given besides.
        """
        if self.postgres_dsn_file and given:
            raise AccessError("postgres_dsn and postgres_dsn_file are both given: leave one of them empty")
        settings = self
        if self.postgres_dsn_file:
            settings = msgspec.structs.replace(
                self, postgres_dsn=secret_of("postgres_dsn_file", self.postgres_dsn_file)
            )
        if settings.postgres_password_file and password_of(settings.postgres_dsn):
            raise AccessError("postgres_dsn has a password, and postgres_password_file is given, too: leave one out")
        return settings

    def login_warnings(self) -> list[str]:
        """Return one line for each file with a secret in it that others may read, as it is now."""
        given = ((name, getattr(self, name)) for name in ("postgres_dsn_file", "postgres_password_file"))
        doubts = [doubt for name, path in given if path and (doubt := doubt_of(name, path)) is not None]
        return super().login_warnings() + doubts


def has_password(addresses: str) -> bool:
    """Say whether a password stands in one of several addresses, separated by commas."""
    return any(password_of(address.strip()) for address in addresses.split(","))


def holds_secret(setting: str, value: object) -> bool:
    """Say whether somebody could log in by what a secret `setting` holds: an address may have no password in it."""
    if not isinstance(value, str) or not value:
        return False
    # NATS takes whoever stands there without a password for a token.
    return has_password(value) or (setting != "postgres_dsn" and (not setting.endswith("_url") or "@" in value))


def password_of(address: str) -> str:
    """Return the password that an address has in it, as it is written there; empty for none."""
    try:
        parts = urlsplit(address)
        return parts.password or next(iter(parse_qs(parts.query).get("password", ())), "")
    except ValueError:
        return ""


def unusable_dsn(dsn: str, error: Exception) -> SettingsError:
    """Return what to say of an address that the driver does not take, without what may be a piece of its password."""
    said = " ".join(str(error).split())
    if any(piece in said for piece in _secrets(dsn)) or "netloc" in said or "int()" in said:
        said = _MALFORMED
    return SettingsError(f"postgres_dsn cannot be used: {said}")


def _secrets(dsn: str) -> set[str]:
    # A password with a / in it ends the part where one is looked for, so all of it counts up to the last @.
    login = dsn.partition("//")[2].rpartition("@")[0].partition(":")[2]
    pieces = {login, password_of(dsn), *re.split(f"[{re.escape(_RESERVED)}=&]", login)}
    return {form for piece in pieces if piece for form in (piece, unquote(piece))}


def verifies(dsn: str) -> bool:
    """Say whether the server's certificate is looked at; its name alone in verify-full."""
    return _query(dsn).get("sslmode") == "verify-full"


def tls_refusal(dsn: str, error: BaseException) -> str | None:
    """Return, in one line, why a connection over TLS came to nothing, or None for what time may mend."""
    given = _query(dsn)
    # With TLS 1.3 our side is done before the server has looked at our certificate: its word ends the connection.
    error = next((one for one in (error, error.__cause__) if isinstance(one, OSError)), error)
    if not isinstance(error, OSError):
        return None
    for name in ("sslrootcert", "sslcert", "sslkey"):
        if name in given and (fault := _unreadable(given[name])) is not None:
            return f"{name} in postgres_dsn ({given[name]!r}) {fault}"
    where = f"Postgres at {_place(dsn)}"
    if isinstance(error, ssl.SSLCertVerificationError):
        known = given.get("sslrootcert")
        return f"{where} " + distrusted(
            error,
            name="check the host in postgres_dsn, or have the certificate name it",
            authority=f"check sslrootcert in postgres_dsn ({known!r})"
            if known
            else "give its authority as sslrootcert in postgres_dsn",
        )
    if isinstance(error, ssl.SSLError):
        return (
            f"{where} and we do not come to terms over TLS ({reason(error)}): check sslcert and sslkey in postgres_dsn"
        )
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return (
            f"{where} offers no TLS, and sslmode in postgres_dsn demands it: turn it on there (`ssl = on`), or "
            "leave that out"
        )
    return None


def database_of(dsn: str) -> str:
    """Return which database it is, for a person: its name where the address has one, and where it is; no login."""
    name = unquote(urlsplit(dsn).path.strip("/"))
    return f"{name} at {_place(dsn)}" if name else f"the one at {_place(dsn)}"


def _query(dsn: str) -> dict[str, str]:
    try:
        return {name: values[-1] for name, values in parse_qs(urlsplit(dsn).query).items()}
    except ValueError:
        return {}


def _place(dsn: str) -> str:
    try:
        return urlsplit(dsn).netloc.rpartition("@")[2] or _query(dsn).get("host", "localhost")
    except ValueError:
        return "postgres_dsn"


def _unreadable(path: str) -> str | None:
    try:
        with Path(path).open("rb") as file:
            return None if b"-----BEGIN" in file.read(MOST_BYTES) else "is not in PEM"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"

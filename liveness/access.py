"""How a process logs in to NATS, by which certificates it knows the server, and where it is answered.

Pure but for reading the files that it names. They are read anew for each connection: what is rotated beside a process
that runs is used from its next connection on, without a restart.
"""

import base64
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from liveness.addresses import log_in
from liveness.errors import AccessError
from liveness.secret_files import content_of, doubt_of, secret_of, unusable

# Of the environment, and of the service's settings.
PREFIX: Final = "LIVENESS_NATS_"
# Whose content opens doors; certificates are for everybody to see.
_SECRET_FILES: Final = ("password_file", "token_file", "nkey_file", "credentials_file", "key_file")
_FILES: Final = (*_SECRET_FILES, "ca_file", "certificate_file")
_JWT: Final = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END NATS USER JWT-+")
_SEED: Final = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END USER NKEY SEED-+")
_INBOX: Final = re.compile(r"_[!-)+-\-/-=?-~]*(\.[!-)+-\-/-=?-~]+)*")


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How to log in to NATS, in one way at most; nothing of it where anybody may, or where `nats_url` says it.

    A `user` with a `password`, or the file that holds it; a `token`, or its file; the file of an nkey's seed; a
    credentials file (JWT and seed). `ca_file` names the authorities by which a server is known, instead of the
    system's; `certificate_file` and `key_file` are what we show (mutual TLS); `server_name` is the name that the
    server's certificate has to bear, where that is not the host's in the URL. Any of these four demands TLS.

    `inbox_prefix` is where answers come, so that permissions can name it; a worker has its name behind that.

    Raises AccessError, a ValueError, for what excludes each other.
    """

    user: str = ""
    password: str = ""
    password_file: str | Path = ""
    token: str = ""
    token_file: str | Path = ""
    nkey_file: str | Path = ""
    credentials_file: str | Path = ""
    ca_file: str | Path = ""
    certificate_file: str | Path = ""
    key_file: str | Path = ""
    server_name: str = ""
    inbox_prefix: str = "_INBOX"

    def __post_init__(self) -> None:
        """Refuse what excludes each other, and what is there by half."""
        ways = list(self._ways())
        if len(ways) > 1:
            raise AccessError(f"{' and '.join(ways)} are two ways of logging in to NATS: leave all but one empty")
        for one in ("password", "token"):
            if getattr(self, one) and getattr(self, f"{one}_file"):
                raise AccessError(f"nats_{one} and nats_{one}_file are both given: leave one of them empty")
        if (self.password or self.password_file) and not self.user:
            raise AccessError("nats_password is given and nats_user is not: give whose password it is")
        if self.user and not (self.password or self.password_file):
            raise AccessError(f"nats_user = {self.user!r} has no password: give nats_password_file, or nats_password")
        for one, other in (("certificate_file", "key_file"), ("key_file", "certificate_file")):
            if getattr(self, one) and not getattr(self, other):
                raise AccessError(
                    f"nats_{one} = {str(getattr(self, one))!r} is of no use without nats_{other}: give it"
                )
        if not _INBOX.fullmatch(self.inbox_prefix):
            raise AccessError(
                f"nats_inbox_prefix = {self.inbox_prefix!r} is no inbox: give a subject that begins with _, as _INBOX"
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Access":
        """Return what LIVENESS_NATS_USER and its like say, which `liveness run` and all commands read as well."""
        environment = os.environ if environment is None else environment
        names = ((field, environment.get(PREFIX + field.upper(), "")) for field in cls.__struct_fields__)
        return cls(**{field: value for field, value in names if value})

    @property
    def wants_tls(self) -> bool:
        """Whether a server that does not speak TLS must not hear from us who we are."""
        return bool(self.ca_file or self.certificate_file or self.server_name)

    @property
    def way(self) -> str:
        """The settings by which we log in; `nats_url` where it is by none of these."""
        return next(self._ways(), "nats_url")

    def check(self, nats_url: str) -> None:
        """Raise AccessError for what cannot be used just now: a file that is not there, or holds something else."""
        if log_in(nats_url) and (way := next(self._ways(), None)) is not None:
            raise AccessError(f"nats_url says who logs in to NATS, and {way} too: leave one of them out")
        self.options()

    def warnings(self) -> list[str]:
        """Return one line for each file with a secret in it that others than we may read."""
        given = ((f"nats_{field}", getattr(self, field)) for field in _SECRET_FILES)
        return [doubt for setting, path in given if path and (doubt := doubt_of(setting, path)) is not None]

    def options(self) -> dict[str, Any]:
        """Return what nats-py's `connect` takes for it, with the files as they are now. Raises AccessError."""
        found: dict[str, Any] = {}
        if self.user:
            password = self.password or self._text("password_file")
            found |= {"user": self.user, "password": password}
        elif token := self.token or (self._text("token_file") if self.token_file else ""):
            found |= {"token": token}
        elif self.nkey_file:
            seed = self._text("nkey_file")
            _signing(seed, "nkey_file", self.nkey_file)
            found |= {"nkeys_seed_str": seed}
        elif self.credentials_file:
            found |= self._credentials()
        if self.wants_tls:
            found |= {"tls": self._tls()}
        if self.server_name:
            found |= {"tls_hostname": self.server_name}
        return found

    def _ways(self) -> Iterator[str]:
        if self.user or self.password or self.password_file:
            yield "nats_user" if self.user else "nats_password"
        for one in ("token", "token_file", "nkey_file", "credentials_file"):
            if getattr(self, one) and not (one == "token_file" and self.token):
                yield f"nats_{one}"

    def _credentials(self) -> dict[str, Any]:
        text = self._text("credentials_file")
        jwt, seed = _JWT.search(text), _SEED.search(text)
        if jwt is None or seed is None:
            unusable("nats_credentials_file", self.credentials_file, "holds no user JWT and seed: make it with nsc")
        # Of the same reading, so that a file that is rotated meanwhile does not give half of each.
        sign = _signing(seed[1], "credentials_file", self.credentials_file)
        return {"user_jwt_cb": lambda: bytearray(jwt[1].encode()), "signature_cb": sign}

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file) or None)
        except OSError as error:
            unusable("nats_ca_file", self.ca_file, _why(error, "certificate"))
        if self.certificate_file:
            for field in ("certificate_file", "key_file"):
                content_of(f"nats_{field}", getattr(self, field))
            try:
                context.load_cert_chain(self.certificate_file, self.key_file, password=_no_password)
            except _EncryptedError:
                unusable(
                    "nats_key_file", self.key_file, "is encrypted, and nobody is there to decrypt it: give a plain one"
                )
            except ssl.SSLError as error:
                if error.reason == "KEY_VALUES_MISMATCH":
                    unusable("nats_key_file", self.key_file, "is not the key of nats_certificate_file")
                unusable(
                    "nats_certificate_file", self.certificate_file, "and nats_key_file are no PEM certificate and key"
                )
        return context

    def _text(self, field: str) -> str:
        return secret_of(f"nats_{field}", getattr(self, field))

    def __repr__(self) -> str:
        """What is set, and of secrets only that they are."""
        return f"Access({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same for rich."""
        hidden = {"password", "token"}
        given = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [(name, "(hidden)" if name in hidden else str(value)) for name, value in given if value]


class _EncryptedError(Exception):
    pass


def _no_password() -> str:
    # Without it, OpenSSL asks on the terminal, and waits.
    raise _EncryptedError


def _signing(seed: str, field: str, path: str | Path) -> Callable[[str], bytes]:
    """Return what signs a server's nonce with `seed`; raises AccessError for one that is none."""
    try:
        import nkeys  # noqa: PLC0415 - an extra, for who logs in by keys
    except ImportError as error:
        raise AccessError(
            f"nats_{field} needs the package nkeys, which is not installed: pip install 'liveness[nkeys]'"
        ) from error
    try:
        pair = nkeys.from_seed(bytearray(seed.encode()))
        if not seed.startswith("SU"):
            unusable(f"nats_{field}", path, "holds the seed of something else than a user: it begins with SU")
    except (nkeys.NkeysError, ValueError) as error:
        # Without the cause: it may have pieces of the seed in it.
        if isinstance(error, AccessError):
            raise
        unusable(f"nats_{field}", path, "holds no nkey seed: it is one line that begins with SU")

    def sign(nonce: str) -> bytes:
        return base64.b64encode(pair.sign(nonce.encode()))

    return sign


def _why(error: OSError, what: str) -> str:
    if isinstance(error, ssl.SSLError):
        return f"holds no {what} in PEM"
    return f"cannot be read: {error.strerror or error}"


ANYBODY: Final = Access()
"""Without any login, by the system's certificates."""

"""The settings that are about NATS alone: where it is, and how to log in there. Pure."""

from typing import Annotated

import msgspec
from msgspec import Meta

from liveness.access import Access
from liveness.errors import AccessError

_FILE = "; read anew for each connection."


class NatsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings are `Settings`; these are a part of them."""

    nats_url: Annotated[str, Meta(description="Where NATS is; several servers separated by commas.")] = (
        "nats://127.0.0.1:4222"
    )
    nats_user: Annotated[str, Meta(description="Who logs in to NATS, with a password.")] = ""
    nats_password: Annotated[str, Meta(description="The user's password; better in a file.")] = ""
    nats_password_file: Annotated[str, Meta(description="The file that holds it" + _FILE)] = ""
    nats_token: Annotated[str, Meta(description="A token to log in with; better in a file.")] = ""
    nats_token_file: Annotated[str, Meta(description="The file that holds it" + _FILE)] = ""
    nats_nkey_file: Annotated[str, Meta(description="The file of the nkey's seed to log in with" + _FILE)] = ""
    nats_credentials_file: Annotated[
        str, Meta(description="The credentials file (JWT and seed) to log in with" + _FILE)
    ] = ""
    nats_ca_file: Annotated[
        str, Meta(description="Authorities by which NATS is known, instead of the system's. Demands TLS.")
    ] = ""
    nats_certificate_file: Annotated[
        str, Meta(description="The certificate to show to NATS (mutual TLS), in PEM" + _FILE)
    ] = ""
    nats_key_file: Annotated[str, Meta(description="The key of that certificate" + _FILE)] = ""
    nats_server_name: Annotated[
        str, Meta(description="The name that NATS's certificate has to bear, if not the host's in `nats_url`.")
    ] = ""
    nats_inbox_prefix: Annotated[
        str, Meta(description="Where NATS brings answers, for permissions; a worker has its name behind it.")
    ] = "_INBOX"
    nats_system_url: Annotated[
        str, Meta(description="NATS with a system account's credentials: lost connections make suspects. None: none.")
    ] = ""
    nats_system_credentials_file: Annotated[
        str, Meta(description="The credentials file to log in with there, if the URL does not say it.")
    ] = ""

    @property
    def nats_access(self) -> Access:
        """How to log in to NATS. Raises AccessError for what excludes each other."""
        return Access(**{name: getattr(self, f"nats_{name}") for name in Access.__struct_fields__})

    @property
    def nats_system_access(self) -> Access:
        """The same for the system account: on the same servers, by the same certificates."""
        same = ("ca_file", "certificate_file", "key_file", "server_name", "inbox_prefix")
        credentials = self.nats_system_credentials_file
        try:
            return Access(credentials_file=credentials, **{name: getattr(self, f"nats_{name}") for name in same})
        except AccessError as error:
            raise AccessError(str(error).replace("nats_credentials", "nats_system_credentials")) from error

    def login_warnings(self) -> list[str]:
        """Return one line for each file with a secret in it that others may read, as it is now."""
        system = [
            one.replace("nats_credentials", "nats_system_credentials") for one in self.nats_system_access.warnings()
        ]
        return list(dict.fromkeys(self.nats_access.warnings() + system))

"""What `nsc` makes, as far as tests need it: an operator, an account, and users with keys and JWTs."""

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nkeys

Template = dict[str, Any]


class Key:
    """A key pair of one role."""

    def __init__(self, prefix: int) -> None:
        self.seed: bytes = nkeys.encode_seed(os.urandom(32), prefix)
        self.public: str = nkeys.from_seed(bytearray(self.seed)).public_key.decode()

    def signed(self, subject: str, name: str, claims: Template) -> str:
        """Return a JWT that this key has signed."""
        body = {"iat": int(time.time()), "iss": self.public, "name": name, "sub": subject, "nats": claims}
        body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
        unsigned = f"{_encoded({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_encoded(body)}"
        signature = nkeys.from_seed(bytearray(self.seed)).sign(unsigned.encode())
        return f"{unsigned}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


class Operator:
    """An operator with one account, whose users have what the `template` of its signing key gives them."""

    def __init__(self, template: Template) -> None:
        self._operator, self._account = Key(nkeys.PREFIX_BYTE_OPERATOR), Key(nkeys.PREFIX_BYTE_ACCOUNT)
        self._scoped = Key(nkeys.PREFIX_BYTE_ACCOUNT)
        self._scope = {"kind": "user_scope", "key": self._scoped.public, "role": "worker", "template": template}

    @property
    def config(self) -> str:
        """What a nats-server has to be told."""
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        claims = {
            "type": "account",
            "version": 2,
            "signing_keys": [self._scope],
            "limits": limits | {"wildcards": True},
        }
        account = self._operator.signed(self._account.public, "LIVENESS", claims)
        operator = self._operator.signed(self._operator.public, "op", {"type": "operator", "version": 2})
        return f"operator: {operator}\nresolver: MEMORY\nresolver_preload: {{ {self._account.public}: {account} }}\n"

    def credentials(self, path: Path, name: str, *, scoped: bool = True) -> Path:
        """Write the credentials file of a user; who is not `scoped` may do all."""
        user = Key(nkeys.PREFIX_BYTE_USER)
        claims: Template = {"type": "user", "version": 2, "issuer_account": self._account.public}
        if not scoped:
            claims |= {"subs": -1, "data": -1, "payload": -1}
        jwt = (self._scoped if scoped else self._account).signed(user.public, name, claims)
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )
        path.chmod(0o600)
        return path


def _encoded(value: Template) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")

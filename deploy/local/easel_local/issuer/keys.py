"""The issuer's signing key: made once, kept in a file, published as a JWK set."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import RSAAlgorithm

from easel_kit.errors import InvalidInput

ALGORITHM = "RS256"
_BITS = 2048


def load_or_make_key(file: Path) -> RSAPrivateKey:
    """The RSA key in file, made and written (readable by its owner alone) when missing.

    Raises:
        InvalidInput: the file holds something else.
    """
    if not file.exists():
        key = generate_private_key(public_exponent=65537, key_size=_BITS)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{file.name}.new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(pem)
        fresh.rename(file)
    try:
        stored = load_pem_private_key(file.read_bytes(), password=None)
    except ValueError as error:
        raise InvalidInput("key_file", "holds no PEM key") from error
    if not isinstance(stored, RSAPrivateKey):
        raise InvalidInput("key_file", "holds no RSA key")
    return stored


def public_jwk(key: RSAPrivateKey) -> dict[str, Any]:
    """The public half as a JWK whose kid is its thumbprint (RFC 7638)."""
    jwk: dict[str, Any] = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    required = {name: jwk[name] for name in ("e", "kty", "n")}
    text = json.dumps(required, separators=(",", ":"), sort_keys=True)
    digest = hashlib.sha256(text.encode()).digest()
    kid = urlsafe_b64encode(digest).rstrip(b"=").decode()
    return required | {"kid": kid, "alg": ALGORITHM, "use": "sig"}

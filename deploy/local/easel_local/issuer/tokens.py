"""Access tokens shaped like Amazon Cognito's, for whoever asks: never for production.

Cognito names the client in client_id and groups in ``cognito:groups``; we add aud, as other
issuers do, and ``easel:plan``, which the gateway heeds only where its settings allow it.
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from pydantic import BaseModel, ConfigDict, Field

from easel_local.issuer.keys import ALGORITHM, public_jwk

# Any fixed value: the same name is the same user in every stack and after every restart.
_USERS = uuid.UUID("5f0c5f2e-7d0b-5a0e-9f53-6c1a0de7a1ce")
_DAY_S = 86_400

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.@+-]+$")]


class TokenRequest(BaseModel):
    """What a token shall say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: Name
    plan: Literal["free", "pro", "enterprise"] | None = None
    groups: list[Name] = Field(default_factory=list, max_length=20)
    ttl_s: int = Field(3600, ge=-_DAY_S, le=30 * _DAY_S)
    """Seconds from now until it expires; below zero for one that has expired."""


def user_id(user: str) -> str:
    """The stable subject of a user's name."""
    return str(uuid.uuid5(_USERS, user))


class TokenMaker:
    """Signs access tokens with one key."""

    def __init__(self, key: RSAPrivateKey, *, issuer: str, audience: str, client_id: str) -> None:
        """Sign with key in the name of issuer."""
        self._key = key
        self._kid = str(public_jwk(key)["kid"])
        self._issuer = issuer
        self._audience = audience
        self._client_id = client_id

    def make(self, wanted: TokenRequest) -> str:
        """A signed access token; its nbf lies before an exp in the past, too."""
        now = int(time.time())
        issued_at = min(now, now + wanted.ttl_s)
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": user_id(wanted.user),
            "client_id": self._client_id,
            "aud": self._audience,
            "username": wanted.user,
            "token_use": "access",
            "scope": "openid easel",
            "iat": issued_at,
            "nbf": issued_at,
            "exp": now + wanted.ttl_s,
            "jti": str(uuid.uuid4()),
        }
        if wanted.groups:
            claims["cognito:groups"] = wanted.groups
        if wanted.plan is not None:
            claims["easel:plan"] = wanted.plan
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._kid})

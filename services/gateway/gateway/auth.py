"""Who a bearer token speaks for (RFC 8725): access tokens of one issuer, RS256 or ES256."""

from __future__ import annotations

import re
from typing import Any

import jwt

from easel_kit import ids
from easel_kit.errors import InvalidInput, Unauthenticated
from gateway.domain.identity import Identity
from gateway.jwks import JwksCache

_MAX_TOKEN_CHARS = 8192
_PLAN_CLAIM = "easel:plan"
_PLAN = re.compile(r"[a-z][a-z0-9_-]{0,31}")
# Only ID tokens carry these (OpenID Connect Core 1.0, section 2 and 3.1.3.6).
_ID_TOKEN_CLAIMS = frozenset({"nonce", "at_hash", "c_hash"})
_REASONS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not valid yet"),
    (jwt.InvalidIssuerError, "the token is from another issuer"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.MissingRequiredClaimError, "the token lacks a claim"),
    (jwt.InvalidSignatureError, "the token's signature is wrong"),
)


class JwtVerifier:
    """Verifies tokens against the keys of one issuer."""

    def __init__(
        self,
        keys: JwksCache,
        *,
        issuer: str,
        audience: str,
        client_id: str,
        algorithms: tuple[str, ...],
        leeway_s: float,
    ) -> None:
        """An empty audience or client id is not asked for; with a client id, token_use is."""
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._client_id = client_id
        self._algorithms = algorithms
        self._leeway_s = leeway_s

    @property
    def ready(self) -> bool:
        """True once keys to verify with are at hand."""
        return self._keys.ready

    async def verify(self, token: str) -> Identity:
        """See `gateway.ports.TokenVerifier`."""
        key = await self._key(token)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience or None,
                leeway=self._leeway_s,
                options={
                    "require": ["exp", "iss", "sub"],
                    "verify_aud": bool(self._audience),
                },
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(_reason(error)) from error
        self._check_use(claims)
        try:
            user_id = ids.user_id(str(claims["sub"]))
        except InvalidInput as error:
            raise Unauthenticated("the token's subject is malformed") from error
        plan = claims.get(_PLAN_CLAIM)
        known = isinstance(plan, str) and _PLAN.fullmatch(plan)
        return Identity(user_id, str(plan) if known else "")

    async def _key(self, token: str) -> jwt.PyJWK:
        if len(token) > _MAX_TOKEN_CHARS:
            raise Unauthenticated("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise Unauthenticated("the token is malformed") from error
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._algorithms:
            raise Unauthenticated("the token is signed in a way that does not count")
        if not isinstance(kid, str) or not kid:
            raise Unauthenticated("the token names no key")
        key = await self._keys.key(kid)
        if key is None or key.algorithm_name != algorithm:
            raise Unauthenticated("the token's key is unknown")
        return key

    def _check_use(self, claims: dict[str, Any]) -> None:
        if self._client_id and claims.get("client_id") != self._client_id:
            raise Unauthenticated("the token is for another client")
        use = claims.get("token_use", "" if self._client_id else "access")
        if use != "access" or _ID_TOKEN_CLAIMS & claims.keys():
            raise Unauthenticated("this is no access token")


def _reason(error: jwt.PyJWTError) -> str:
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return "the token is malformed"

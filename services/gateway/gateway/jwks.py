"""The issuer's public keys: read at start and on an interval, kept through its outages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from prometheus_client import Counter

from easel_kit.clock import Clock
from easel_kit.errors import DependencyDown
from easel_kit.log import get_logger

_MAX_BYTES = 256 * 1024
_MIN_RSA_BITS = 2048  # RFC 7518, section 3.3
# Pauses after failed reads, in seconds: short at first, so that a start beside the issuer is quick.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 10.0
# While no key was ever read, a request may ask again this soon.
_EMPTY_RETRY_S = 0.5

_log = get_logger(__name__)
_reads = Counter("easel_jwks_reads", "Reads of the issuer's keys.", ["outcome"])


class JwksCache:
    """Keys by `kid`; one read at a time, however many ask."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        clock: Clock,
        *,
        issuer: str,
        jwks_url: str,
        algorithms: tuple[str, ...],
        refresh_s: float,
        min_refresh_s: float,
    ) -> None:
        """`client` has a timeout and follows no redirects."""
        self._client = client
        self._clock = clock
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._algorithms = algorithms
        self._refresh_s = refresh_s
        self._min_refresh_s = min_refresh_s
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """True once keys were read."""
        return bool(self._keys)

    async def key(self, kid: str) -> jwt.PyJWK | None:
        """The key of that id; an unknown one makes the keys be read again, at a bounded rate.

        Raises:
            DependencyDown: no keys could be read yet.
        """
        if kid not in self._keys:
            async with self._reading:
                if kid not in self._keys and self._may_read():
                    await self._read()
        if not self._keys:
            raise DependencyDown("the token issuer's keys cannot be had at this moment")
        return self._keys.get(kid)

    async def keep_fresh(self) -> None:
        """Reads the keys now and on the interval, sooner after a failure. Never ends."""
        pause_s = _FIRST_PAUSE_S
        while True:
            async with self._reading:
                done = await self._read()
            await asyncio.sleep(self._refresh_s if done else min(pause_s, self._refresh_s))
            pause_s = _FIRST_PAUSE_S if done else min(pause_s * 2, _LAST_PAUSE_S)

    def _may_read(self) -> bool:
        if self._read_at is None:
            return True
        wait_s = self._min_refresh_s if self._keys else min(_EMPTY_RETRY_S, self._min_refresh_s)
        return self._clock.monotonic() - self._read_at >= wait_s

    async def _read(self) -> bool:
        self._read_at = self._clock.monotonic()
        try:
            url = self._jwks_url or await self._discover()
            keys = self._usable(await self._document(url))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            _reads.labels("failed").inc()
            _log.warning("jwks.read_failed", reason=type(error).__name__, kept=len(self._keys))
            return False
        _reads.labels("done").inc()
        if keys.keys() != self._keys.keys():
            _log.info("jwks.changed", kids=sorted(keys))
        self._keys = keys
        return True

    async def _discover(self) -> str:
        base = self._issuer.rstrip("/")
        page = await self._document(f"{base}/.well-known/openid-configuration")
        if page.get("issuer") != self._issuer or not isinstance(page.get("jwks_uri"), str):
            raise ValueError("the discovery page is another issuer's, or names no keys")
        return str(page["jwks_uri"])

    async def _document(self, url: str) -> dict[str, Any]:
        body = b""
        async with self._client.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError("the issuer refuses")
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise ValueError("the issuer's answer is too long")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("the issuer's answer is no object")  # noqa: TRY004 (bad data)
        return document

    def _usable(self, document: dict[str, Any]) -> dict[str, jwt.PyJWK]:
        entries = document.get("keys")
        found = {
            str(entry["kid"]): key
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and (key := self._signing_key(entry)) is not None
        }
        if not found:
            raise ValueError("the issuer publishes no key of use")
        return found

    def _signing_key(self, entry: dict[str, Any]) -> jwt.PyJWK | None:
        if not isinstance(entry.get("kid"), str) or entry.get("use", "sig") != "sig":
            return None
        if entry.get("kty") not in {"RSA", "EC"}:  # a secret has no place in a published set
            return None
        try:
            key = jwt.PyJWK(entry)
        except jwt.PyJWTError:
            return None
        if key.algorithm_name not in self._algorithms:
            return None
        if isinstance(key.key, RSAPublicKey) and key.key.key_size < _MIN_RSA_BITS:
            return None
        return key

"""A token issuer on loopback for the gateway's tests: real keys, real HTTP, planted faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "easel"
CLIENT_ID = "easel-web"

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Issuer:
    """Publishes keys and signs tokens; counts how often its keys are read."""

    def __init__(self) -> None:
        self.url = ""
        self.reads = 0
        self.down = False
        self.slow = asyncio.Event()
        self.slow.set()
        self.keys: dict[str, SigningKey] = {}
        self.kid = ""
        self.rotate()

    def rotate(self, *, rsa_key: bool = False, keep: bool = False) -> str:
        """Signs with a new key from now on; the old ones are published no longer."""
        if not keep:
            self.keys.clear()
        self.kid = uuid.uuid4().hex
        self.keys[self.kid] = (
            rsa.generate_private_key(public_exponent=65537, key_size=2048)
            if rsa_key
            else ec.generate_private_key(ec.SECP256R1())
        )
        return self.kid

    def claims(self, user: str = "alice", **changed: object) -> dict[str, Any]:
        """Claims of a good access token; a change to None leaves the claim out."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": self.url,
            "sub": user,
            "aud": AUDIENCE,
            "client_id": CLIENT_ID,
            "token_use": "access",
            "iat": now,
            "nbf": now,
            "exp": now + 600,
        } | changed
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, user: str = "alice", **changed: object) -> str:
        """A token signed with the current key."""
        return self.signed(self.claims(user, **changed), kid=self.kid)

    def signed(self, claims: dict[str, Any], *, kid: str) -> str:
        """Any claims, signed with the current key under any key id."""
        key = self.keys[self.kid]
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid})

    def public_pem(self) -> bytes:
        """The current public key, as anyone can make it from the published set."""
        return (
            self.keys[self.kid]
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )

    def jwks(self) -> dict[str, Any]:
        """What is published."""
        published = []
        for kid, key in self.keys.items():
            if isinstance(key, rsa.RSAPrivateKey):
                entry = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
                entry["alg"] = "RS256"
            else:
                entry = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
                entry["alg"] = "ES256"
            published.append(entry | {"kid": kid, "use": "sig"})
        return {"keys": published}

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Issuer]:
        """Answers on a free port of loopback inside the block."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self
            self.slow.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            status, document = "200 OK", {}
            if self.down:
                status = "503 Service Unavailable"
            elif path == "/.well-known/openid-configuration":
                document = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
            elif path == "/keys":
                self.reads += 1
                await self.slow.wait()
                document = self.jwks()
            else:
                status = "404 Not Found"
            body = json.dumps(document).encode()
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        writer.close()

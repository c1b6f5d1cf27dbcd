"""Tokens that prove nothing are 401, each for its reason; keys come and go without harm."""

import asyncio
import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.gateway import Gateway, Start, until, until_ready
from tests.fakes.gateway_issuer import CLIENT_ID, Issuer


def unsigned(claims: dict[str, Any], header: dict[str, Any]) -> str:
    parts = [json.dumps(part).encode() for part in (header, claims)]
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


def hmac_signed(issuer: Issuer) -> str:
    """HS256 with the public key as the secret (RFC 8725, section 2.1); PyJWT refuses to make it."""
    head = unsigned(issuer.claims(), {"alg": "HS256", "typ": "JWT", "kid": issuer.kid})[:-1]
    mac = hmac.new(issuer.public_pem(), head.encode(), hashlib.sha256).digest()
    return f"{head}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def forged(issuer: Issuer) -> str:
    """Signed by someone else who names the right key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(issuer.claims(), key, algorithm="ES256", headers={"kid": issuer.kid})


async def ask(gateway: Gateway, token: str) -> httpx.Response:
    return await gateway.http.get("/v1/me", headers={"Authorization": f"Bearer {token}"})


def refused(answer: httpx.Response, reason: str) -> None:
    assert answer.status_code == 401, reason
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == 'Bearer realm="easel", error="invalid_token"'
    assert problem["type"] == "/problems/unauthenticated"
    assert reason in problem["detail"]


async def test_every_token_that_proves_nothing_is_401(gateway: Gateway) -> None:
    issuer = gateway.issuer
    alice = issuer.token()
    head, body, signature = alice.split(".")
    for token, reason in (
        (issuer.token(exp=issuer.claims()["exp"] - 700), "expired"),
        (issuer.token(nbf=issuer.claims()["exp"]), "not valid yet"),
        (issuer.token(exp=None), "lacks a claim"),
        (issuer.token(sub=None), "lacks a claim"),
        (issuer.token(iss="http://127.0.0.1:1"), "another issuer"),
        (issuer.token(iss=None), "lacks a claim"),
        (issuer.token(aud="other"), "another audience"),
        (issuer.token(aud=None), "lacks a claim"),
        (issuer.token(token_use="id"), "no access token"),
        (issuer.token(token_use=None, nonce="n"), "no access token"),
        (issuer.token(sub="../alice"), "subject is malformed"),
        (unsigned(issuer.claims(), {"alg": "none", "typ": "JWT"}), "does not count"),
        (unsigned(issuer.claims(), {"alg": "none", "kid": issuer.kid}), "does not count"),
        (unsigned(issuer.claims(), {"alg": "ES256", "kid": issuer.kid}), "signature is wrong"),
        (hmac_signed(issuer), "does not count"),
        (forged(issuer), "signature is wrong"),
        (f"{head}.{body}.{signature[:-8]}AAAAAAAA", "signature is wrong"),
        (issuer.signed(issuer.claims(), kid=""), "names no key"),
        (issuer.signed(issuer.claims(), kid="unknown"), "key is unknown"),
        ("x.y.z", "malformed"),
        ("x" * 9000, "too long"),
    ):
        refused(await ask(gateway, token), reason)
    assert (await ask(gateway, alice)).status_code == 200


async def test_no_token_is_401_without_an_error_code(gateway: Gateway) -> None:
    for headers in ({}, {"Authorization": "Basic YTpi"}):
        answer = await gateway.http.get("/v1/me", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith('Bearer realm="easel"')
    bare = await gateway.http.get("/v1/me")
    assert bare.headers["www-authenticate"] == 'Bearer realm="easel"'


async def test_clocks_may_differ_a_little(gateway: Gateway) -> None:
    now = gateway.issuer.claims()["iat"]
    assert (await ask(gateway, gateway.issuer.token(exp=now - 20))).status_code == 200
    assert (await ask(gateway, gateway.issuer.token(nbf=now + 20))).status_code == 200


async def test_a_cognito_pool_is_known_by_its_client(start: Start) -> None:
    async with start(jwt={"audience": "", "client_id": CLIENT_ID}) as gateway:
        issuer = gateway.issuer
        assert (await ask(gateway, issuer.token(aud=None))).status_code == 200
        refused(await ask(gateway, issuer.token(client_id="other")), "another client")
        refused(await ask(gateway, issuer.token(client_id=None)), "another client")
        refused(await ask(gateway, issuer.token(token_use=None)), "no access token")
        refused(await ask(gateway, issuer.token(token_use="id")), "no access token")


async def test_rsa_and_elliptic_keys_count_after_a_rotation(gateway: Gateway) -> None:
    old = gateway.issuer.token()
    assert (await ask(gateway, old)).status_code == 200
    gateway.issuer.rotate(rsa_key=True)
    assert (await ask(gateway, gateway.issuer.token())).status_code == 200
    refused(await ask(gateway, old), "key is unknown")


async def test_an_algorithm_may_be_left_out(start: Start) -> None:
    async with start(jwt={"algorithms": ["RS256"]}, wait_ready=False) as gateway:
        token = gateway.issuer.token()
        gateway.issuer.rotate(rsa_key=True, keep=True)
        await until_ready(gateway.http)
        refused(await ask(gateway, token), "does not count")
        assert (await ask(gateway, gateway.issuer.token())).status_code == 200


async def test_unknown_keys_cannot_hammer_the_issuer(start: Start) -> None:
    async with start(jwt={"min_refresh_s": 60}) as gateway:
        issuer = gateway.issuer
        tokens = [issuer.signed(issuer.claims(), kid=f"unknown-{n}") for n in range(20)]
        before = issuer.reads
        for answer in await asyncio.gather(*(ask(gateway, token) for token in tokens)):
            refused(answer, "key is unknown")
        assert issuer.reads - before <= 1


async def test_many_who_ask_at_once_read_the_keys_once(gateway: Gateway) -> None:
    gateway.issuer.rotate()
    gateway.issuer.slow.clear()
    before = gateway.issuer.reads
    token = gateway.issuer.token()
    asking = [asyncio.ensure_future(ask(gateway, token)) for _ in range(10)]
    await until(lambda: gateway.issuer.reads > before)
    gateway.issuer.slow.set()
    assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
    assert gateway.issuer.reads == before + 1


async def test_known_keys_outlast_the_issuer(start: Start) -> None:
    async with start(jwt={"refresh_s": 0.02}) as gateway:
        good = gateway.issuer.token()
        unknown = gateway.issuer.signed(gateway.issuer.claims(), kid="other")
        gateway.issuer.down = True
        for _ in range(5):
            assert (await ask(gateway, good)).status_code == 200
            refused(await ask(gateway, unknown), "key is unknown")
        assert (await gateway.http.get("/readyz")).status_code == 200


async def test_a_key_taken_back_is_known_no_longer(start: Start) -> None:
    async with start(jwt={"refresh_s": 0.02}) as gateway:
        old = gateway.issuer.token()
        gateway.issuer.rotate()
        async with asyncio.timeout(5):
            while (await ask(gateway, old)).status_code == 200:
                pass


async def test_before_the_first_keys_nothing_is_ready(start: Start, issuer: Issuer) -> None:
    issuer.down = True
    async with start(wait_ready=False) as gateway:
        assert (await gateway.http.get("/readyz")).status_code == 503
        assert (await gateway.http.get("/healthz")).status_code == 200
        answer = await ask(gateway, issuer.token())
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/dependency-down")
        issuer.down = False
        await until_ready(gateway.http)
        assert (await ask(gateway, issuer.token())).status_code == 200


@pytest.mark.parametrize("lie", ["http://127.0.0.1:9/other", ""])
async def test_a_discovery_page_of_another_issuer_is_not_believed(
    start: Start, issuer: Issuer, lie: str
) -> None:
    honest, issuer.url = issuer.url, lie
    changed = {"jwt": {"issuer": honest}}
    async with start(wait_ready=False, **changed) as gateway:
        answer = await ask(gateway, issuer.token(iss=honest))
        assert answer.status_code == 503

"""Which published keys count, and which answers of an issuer are not believed."""

import json
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from easel_kit.errors import DependencyDown
from gateway.jwks import JwksCache
from tests.fakes.gateway_ports import MovedClock

ISSUER = "https://issuer.example"
CURVE = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
OTHER_CURVE = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True)
WEAK = RSAAlgorithm.to_jwk(
    rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key(),  # noqa: S505
    as_dict=True,
)


class Issuer:
    """Answers any request with what it was given."""

    def __init__(self, answer: httpx.Response | Exception) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def cache(issuer: Issuer, clock: MovedClock, jwks_url: str = f"{ISSUER}/keys") -> JwksCache:
    return JwksCache(
        httpx.AsyncClient(transport=httpx.MockTransport(issuer)),
        clock,
        issuer=ISSUER,
        jwks_url=jwks_url,
        algorithms=("RS256", "ES256"),
        refresh_s=300,
        min_refresh_s=10,
    )


def published(*keys: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"keys": keys})


@pytest.mark.parametrize(
    "entry",
    [
        CURVE,
        CURVE | {"kid": 7},
        CURVE | {"kid": "k", "use": "enc"},
        CURVE | {"kid": "k", "alg": "ES384"},
        CURVE | {"kid": "k", "x": "AA"},
        OTHER_CURVE | {"kid": "k"},
        WEAK | {"kid": "k"},
        {"kid": "k", "kty": "oct", "k": "c2VjcmV0"},
    ],
)
async def test_a_key_of_no_use_does_not_count(entry: dict[str, Any]) -> None:
    issuer = Issuer(published(entry, CURVE | {"kid": "good"}))
    keys = cache(issuer, MovedClock())
    assert await keys.key("k") is None
    assert await keys.key("good") is not None


@pytest.mark.parametrize(
    "answer",
    [
        published(),
        published(WEAK | {"kid": "k"}),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"keys": "none"}),
        httpx.Response(200, json={"keys": ["none"]}),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, content=json.dumps({"keys": "x" * 300_000}).encode()),
        httpx.Response(302, headers={"Location": "https://elsewhere.example"}),
        httpx.Response(500),
        httpx.ConnectError("no route"),
    ],
)
async def test_what_is_no_key_set_is_not_believed(answer: httpx.Response | Exception) -> None:
    keys = cache(Issuer(answer), MovedClock())
    with pytest.raises(DependencyDown):
        await keys.key("k")
    assert not keys.ready


async def test_unknown_keys_are_asked_for_at_a_bounded_rate() -> None:
    issuer, clock = Issuer(published(CURVE | {"kid": "old"})), MovedClock()
    keys = cache(issuer, clock)
    assert await keys.key("old") is not None
    issuer.answer = published(CURVE | {"kid": "new"})
    for _ in range(3):
        assert await keys.key("new") is None
    assert len(issuer.asked) == 1
    clock.elapsed_s = 10
    assert await keys.key("new") is not None
    assert await keys.key("old") is None
    assert len(issuer.asked) == 2


async def test_before_the_first_keys_the_rate_is_higher() -> None:
    issuer, clock = Issuer(httpx.Response(500)), MovedClock()
    keys = cache(issuer, clock)
    for _ in range(2):
        with pytest.raises(DependencyDown):
            await keys.key("k")
    assert len(issuer.asked) == 1
    issuer.answer, clock.elapsed_s = published(CURVE | {"kid": "k"}), 0.5
    assert await keys.key("k") is not None


async def test_the_discovery_page_says_where_the_keys_are() -> None:
    issuer = Issuer(httpx.Response(200, json={"issuer": ISSUER, "jwks_uri": f"{ISSUER}/k"}))
    with pytest.raises(DependencyDown):
        await cache(issuer, MovedClock(), jwks_url="").key("k")
    assert issuer.asked == [f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/k"]

"""What the local issuer's tokens say, and that its HTTP face refuses nonsense."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from easel_local.issuer.app import build_app
from easel_local.issuer.keys import public_jwk
from easel_local.issuer.settings import IssuerSettings
from easel_local.issuer.tokens import user_id

URL = "http://issuer.test"


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
async def issuer(key: RSAPrivateKey) -> AsyncIterator[httpx.AsyncClient]:
    settings = IssuerSettings(url=URL, audience="easel", client_id="laptop", key_file=Path())
    transport = httpx.ASGITransport(build_app(settings, key))
    async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
        yield client


async def claims_of(issuer: httpx.AsyncClient, **wanted: object) -> dict[str, Any]:
    """The verified claims of a fresh token, read as a stranger would: by discovery."""
    answer = await issuer.post("/token", json={"user": "alice", **wanted})
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    discovery = (await issuer.get("/.well-known/openid-configuration")).json()
    keys = jwt.PyJWKSet.from_dict((await issuer.get(discovery["jwks_uri"])).json())
    signing = keys[jwt.get_unverified_header(token)["kid"]]
    found: dict[str, Any] = jwt.decode(
        token,
        signing,
        algorithms=discovery["id_token_signing_alg_values_supported"],
        issuer=discovery["issuer"],
        audience="easel",
        options={"verify_exp": False},
    )
    return found


async def test_an_access_token_names_its_user_and_its_client(issuer: httpx.AsyncClient) -> None:
    claims = await claims_of(issuer)
    assert claims["iss"] == URL
    assert claims["client_id"] == "laptop"
    assert claims["token_use"] == "access"
    assert claims["username"] == "alice"
    assert claims["exp"] - claims["iat"] == 3600
    assert "cognito:groups" not in claims
    assert "easel:plan" not in claims


async def test_plan_and_groups_are_said_when_asked_for(issuer: httpx.AsyncClient) -> None:
    claims = await claims_of(issuer, plan="pro", groups=["admin"])
    assert claims["easel:plan"] == "pro"
    assert claims["cognito:groups"] == ["admin"]


async def test_a_user_keeps_its_subject_and_shares_it_with_none(issuer: httpx.AsyncClient) -> None:
    first, second = await claims_of(issuer), await claims_of(issuer)
    assert first["sub"] == second["sub"] == user_id("alice")
    assert first["jti"] != second["jti"]
    assert (await claims_of(issuer, user="bob"))["sub"] != first["sub"]


async def test_an_expired_token_was_valid_once(issuer: httpx.AsyncClient) -> None:
    claims = await claims_of(issuer, ttl_s=-60)
    assert claims["iat"] == claims["nbf"] == claims["exp"]


async def test_only_the_public_half_of_the_key_is_published(
    issuer: httpx.AsyncClient, key: RSAPrivateKey
) -> None:
    keys = (await issuer.get("/.well-known/jwks.json")).json()["keys"]
    assert keys == [public_jwk(key)]
    assert set(keys[0]) == {"kty", "n", "e", "kid", "alg", "use"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user"),
        ({"user": ""}, "user"),
        ({"user": "two words"}, "user"),
        ({"user": "alice", "plan": "golden"}, "plan"),
        ({"user": "alice", "ttl_s": 10**9}, "ttl_s"),
        ({"user": "alice", "admin": True}, "admin"),
        ({"user": "alice", "groups": ["x" * 17_000]}, ""),
    ],
)
async def test_a_wrong_request_is_refused_by_field(
    issuer: httpx.AsyncClient, body: dict[str, object], field: str
) -> None:
    answer = await issuer.post("/token", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [problem["field"] for problem in answer.json()["errors"]] == [field]


async def test_the_issuer_says_that_it_is_well(issuer: httpx.AsyncClient) -> None:
    assert (await issuer.get("/healthz")).json() == {"status": "ok"}


def test_the_name_in_tokens_is_the_address_unless_set() -> None:
    assert IssuerSettings(listen="127.0.0.1:9000").name == "http://127.0.0.1:9000"
    assert IssuerSettings(listen="127.0.0.1:9000", url=URL).name == URL

"""The door: whose token opens it, and that it opens only to one's own things."""

import base64
import hashlib
import hmac
import json
import time

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from easel_kit.ids import new_image_id, new_job_id
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.timeout(120)]


def status(stack: Stack, token: str | None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = httpx.get(f"{stack.url}/v1/me", headers=headers, timeout=10)
    if answer.status_code == 401:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    return answer.status_code


def test_only_the_issuer_s_own_tokens_open_the_door(stack: Stack) -> None:
    good = stack.token(user="mallory", plan="free")
    assert status(stack, good) == 200
    claims = jwt.decode(good, options={"verify_signature": False})
    header = jwt.get_unverified_header(good)
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    keys = httpx.get(f"{stack.report['issuer_url']}/.well-known/jwks.json", timeout=10).json()
    public = jwt.PyJWK(keys["keys"][0]).key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    kid = {"kid": header["kid"]}
    head, body, signature = good.split(".")
    swapped = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "admin"}).encode()).rstrip(b"=")
    own_key = (stack.folder / "issuer-key.pem").read_bytes()
    long_ago = {"iat": int(time.time()) - 7200, "exp": int(time.time()) - 3600}
    assert status(stack, jwt.encode(claims, own_key, algorithm="RS256", headers=kid)) == 200
    bad = {
        "expired": jwt.encode({**claims, **long_ago}, own_key, algorithm="RS256", headers=kid),
        "no access token": jwt.encode(
            {**claims, "token_use": "id"}, own_key, algorithm="RS256", headers=kid
        ),
        "none at all": None,
        "nonsense": "nonsense",
        "unsigned": jwt.encode(claims, "", algorithm="none", headers=kid),
        "another key": jwt.encode(claims, foreign, algorithm="RS256", headers=kid),
        "another issuer": jwt.encode(
            {**claims, "iss": "https://elsewhere.example"}, foreign, algorithm="RS256", headers=kid
        ),
        "HMAC with the public key": _hmac(claims, header["kid"], public),
        "changed body": f"{head}.{swapped.decode()}.{signature}",
        "no signature": f"{head}.{body}.",
    }
    assert {name: status(stack, token) for name, token in bad.items()} == dict.fromkeys(bad, 401)


def _hmac(claims: dict[str, object], kid: str, public: bytes) -> str:
    """Signed with HS256 and the public key as secret, as RFC 8725 section 2.1 warns of."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    text = f"{part({'alg': 'HS256', 'kid': kid, 'typ': 'JWT'})}.{part(claims)}"
    digest = hmac.new(public, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def test_someone_else_s_things_are_not_there(stack: Stack) -> None:
    owner, other = stack.client("owner"), stack.client("other")
    job = owner.wait(owner.submit("a red circle on a white background")["id"])
    image = job["images"][0]
    paths = [
        f"/v1/generations/{job['id']}",
        f"/v1/generations/{job['id']}/events",
        f"/v1/images/{image['id']}",
        f"/v1/images/{image['id']}/content",
    ]
    assert [owner.get(path).status_code for path in paths] == [200, 200, 200, 307]
    assert [other.get(path).status_code for path in paths] == [404] * 4
    assert other.cancel(job["id"]).status_code == 404
    assert other.jobs() == []
    for unknown in (f"/v1/generations/{new_job_id()}", f"/v1/images/{new_image_id()}/content"):
        assert owner.get(unknown).status_code == 404


def test_a_signed_link_is_good_for_its_picture_only(stack: Stack) -> None:
    owner = stack.client("owner")
    job = owner.wait(owner.submit("a red circle on a white background")["id"])
    link = owner.get(job["images"][0]["url"]).headers["location"]
    assert httpx.get(link, timeout=10).status_code == 200
    for broken in (link[:-1] + ("0" if link[-1] != "0" else "1"), link.split("?")[0]):
        assert httpx.get(broken, timeout=10).status_code in {403, 404, 422}

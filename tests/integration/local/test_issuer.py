"""The token issuer as a process of its own."""

from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from easel_kit.errors import InvalidInput
from easel_local.issuer.keys import load_or_make_key, public_jwk
from easel_local.runner.health import Health
from easel_local.runner.part import Program, Service


def issuer(port: int, key_file: Path) -> Service:
    address = f"127.0.0.1:{port}"
    return Service(
        name="issuer",
        argv=("python", "-m", "easel_local.issuer"),
        env={"ISSUER_LISTEN": address, "ISSUER_KEY_FILE": str(key_file)},
        health=Health("http", f"http://{address}/healthz"),
    )


async def test_tokens_of_the_last_run_are_still_good(tmp_path: Path, free_port: int) -> None:
    key_file = tmp_path / "new" / "issuer-key.pem"
    tokens, jwks = [], {}
    for _ in range(2):
        program = Program(issuer(free_port, key_file), {}, tmp_path / "log")
        await program.start()
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port}") as client:
                answer = await client.post("/token", json={"user": "alice"})
                tokens.append(answer.json()["access_token"])
                jwks = (await client.get("/.well-known/jwks.json")).json()
        finally:
            await program.stop()
        assert program.child is not None
        assert program.child.returncode == 0
    signing = jwt.PyJWKSet.from_dict(jwks).keys[0]
    for token in tokens:
        assert jwt.decode(token, signing, ["RS256"], audience="easel")["username"] == "alice"
    assert key_file.stat().st_mode & 0o077 == 0
    assert "alice" not in (tmp_path / "log").read_text()


def test_the_key_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    assert public_jwk(load_or_make_key(file)) == public_jwk(load_or_make_key(file))


def test_a_file_without_an_rsa_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("nonsense")
    with pytest.raises(InvalidInput, match="no PEM key"):
        load_or_make_key(file)
    elliptic = ec.generate_private_key(ec.SECP256R1())
    file.write_bytes(elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InvalidInput, match="no RSA key"):
        load_or_make_key(file)

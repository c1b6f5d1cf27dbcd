"""The issuer's HTTP face: discovery, keys, and a token for whoever asks."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from easel_kit.log import get_logger
from easel_local.issuer.keys import ALGORITHM, public_jwk
from easel_local.issuer.settings import IssuerSettings
from easel_local.issuer.tokens import TokenMaker, TokenRequest, user_id

_MAX_BODY_BYTES = 16_384
_log = get_logger(__name__)


def build_app(settings: IssuerSettings, key: RSAPrivateKey) -> Starlette:
    """The application that signs with key."""
    tokens = TokenMaker(
        key,
        issuer=settings.name,
        audience=settings.audience,
        client_id=settings.client_id,
    )
    jwks = {"keys": [public_jwk(key)]}

    async def discovery(_request: Request) -> JSONResponse:
        return JSONResponse(_discovery(settings.name))

    async def keys(_request: Request) -> JSONResponse:
        return JSONResponse(jwks, headers={"Cache-Control": "max-age=300"})

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def token(request: Request) -> JSONResponse:
        body = await _bounded_body(request)
        try:
            wanted = TokenRequest.model_validate_json(body)
        except ValidationError as error:
            return _refusal(error)
        _log.info("token.issued", user_id=user_id(wanted.user), plan=wanted.plan)
        answer = {"access_token": tokens.make(wanted), "token_type": "Bearer"}
        return JSONResponse(
            answer | {"expires_in": wanted.ttl_s}, headers={"Cache-Control": "no-store"}
        )

    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", discovery),
            Route("/.well-known/jwks.json", keys),
            Route("/token", token, methods=["POST"]),
            Route("/healthz", health),
        ]
    )


def _discovery(issuer: str) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "token_endpoint": f"{issuer}/token",
        "response_types_supported": ["token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
    }


async def _bounded_body(request: Request) -> bytes:
    """The body, cut where it is too long; what is cut is no JSON any more."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            break
    return body[:_MAX_BODY_BYTES]


def _refusal(error: ValidationError) -> JSONResponse:
    problems = [
        {"field": ".".join(str(part) for part in item["loc"]), "reason": item["msg"]}
        for item in error.errors(include_url=False, include_input=False)
    ]
    answer = {"title": "Invalid token request", "status": 422, "errors": problems}
    return JSONResponse(answer, status_code=422, media_type="application/problem+json")

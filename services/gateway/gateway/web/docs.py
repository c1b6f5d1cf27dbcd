"""The page that shows the API's description; its scripts are its own, so it needs no network."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

from easel_kit.errors import NotFound

_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)
_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_ASSETS_MAX_AGE_S = 86_400

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def get_docs(request: Request) -> HTMLResponse:
    """Swagger UI over `/openapi.json`."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=f"{request.app.title} API",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


@router.get("/docs/{name}")
def get_asset(name: str) -> Response:
    """A script or style sheet of Swagger UI, as the package `fastapi-offline` carries it."""
    if name not in _ASSETS:
        raise NotFound("page", name)
    content = resources.files("fastapi_offline").joinpath("static", name).read_bytes()
    return Response(
        content,
        media_type=_ASSETS[name],
        headers={"Cache-Control": f"public, max-age={_ASSETS_MAX_AGE_S}"},
    )

"""The page that shows the API's description; its scripts come from a public host, by version."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

_SCRIPTS = "https://cdn.jsdelivr.net"
_POLICY = (
    f"default-src 'none'; script-src {_SCRIPTS} 'unsafe-inline'; "
    f"style-src {_SCRIPTS} 'unsafe-inline'; img-src 'self' data: https://fastapi.tiangolo.com; "
    "connect-src 'self'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def get_docs(request: Request) -> HTMLResponse:
    """Swagger UI over `/openapi.json`."""
    page = get_swagger_ui_html(openapi_url="openapi.json", title=f"{request.app.title} API")
    page.headers["Content-Security-Policy"] = _POLICY
    return page

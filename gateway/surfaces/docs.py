"""The page that shows the API document and tries it. It asks nobody but the gateway for anything: it works in a sealed
network, and tells no stranger who looks at it."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)
_PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'unsafe-inline'",
        "style-src 'unsafe-inline'",
        "connect-src 'self'",
        "media-src blob:",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


@router.get("/docs", response_class=HTMLResponse)
async def page() -> HTMLResponse:
    headers = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer", "cache-control": "no-cache"}
    return HTMLResponse(_PAGE, headers=headers)

"""Errors of the HTTP door: RFC 9457 problem documents."""

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response


def problem(status: int, reason: str, title: str, headers: Mapping[str, str]) -> Response:
    """The response for one refusal."""
    body = {"type": "about:blank", "title": title, "status": status, "reason": reason}
    return JSONResponse(body, status, dict(headers), "application/problem+json")

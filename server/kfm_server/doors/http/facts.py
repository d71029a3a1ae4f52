"""What a request is about stands in every line that is logged while it is answered."""

import re
import uuid

from starlette.types import ASGIApp, Receive, Scope, Send

from kfm_server.context import work_on
from kfm_server.trace_ids import parse_traceparent

_REQUEST_ID = re.compile(r"[!-~]{1,128}\Z")


class WithFacts:
    """States a request's trace, id and path. Each request has a task, and so a context, of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            parent = parse_traceparent(headers.get(b"traceparent", ""))
            request_id, fresh = headers.get(b"x-request-id", ""), uuid.uuid4().hex
            work_on(
                trace_id=parent[0] if parent else fresh,
                request_id=request_id if _REQUEST_ID.match(request_id) else fresh,
                path=scope["path"][:200],
            )
        await self._app(scope, receive, send)

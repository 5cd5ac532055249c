"""Serving the page: addresses, limits and the warm-up."""

from __future__ import annotations

import ipaddress
import logging
import threading
from dataclasses import dataclass
from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.exception_handlers import http_exception_handler
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from demo.app import MAX_WAITING, build_demo
from demo.theme import launch_options
from demo.workbench import Workbench
from llara_app.errors import LlaraError, UsageError

log = logging.getLogger(__name__)

MAX_BODY = 512 * 1024
"""Bytes of a request; the longest history that is accepted is far smaller."""

BUSY = "The demo is busy: too many requests are waiting already. Try again in a moment."


@dataclass(frozen=True)
class Address:
    host: str = "127.0.0.1"
    port: int | None = None
    user: str | None = None
    password: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def auth(self) -> tuple[str, str] | None:
        if (self.user is None) != (self.password is None):
            raise UsageError("A user needs a password, and a password a user", "", "Give --user and --password.")
        return (self.user, self.password) if self.user is not None and self.password is not None else None


class BodyLimit:
    """Refuses requests that are too large, before any of their content is read as JSON."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            if len(body) > self.limit:
                detail = f"This request is too large; {self.limit // 1024} KiB are accepted."
                await JSONResponse({"detail": detail, "error": detail}, status_code=413)(scope, receive, send)
                return
            if not message.get("more_body"):
                break
        whole = {"type": "http.request", "body": bytes(body), "more_body": False}
        pending = [whole]

        async def replay() -> Any:
            return pending.pop() if pending else await receive()

        await self.app(scope, replay, send)


async def _say_busy(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if str(error.detail).startswith("Queue is full"):
        return JSONResponse({"detail": BUSY, "error": BUSY}, status_code=error.status_code)
    return await http_exception_handler(request, error)


def launch(
    workbench: Workbench, address: Address, *, open_browser: bool = False, max_waiting: int = MAX_WAITING
) -> gr.Blocks:
    """Begin to serve the demo, and load the first model meanwhile.

    Returns:
        The served page: ``block_thread()`` waits until it is interrupted, ``close()`` ends it.

    Raises:
        UsageError: the address cannot be served, or only one of user and password was given.
    """
    demo = build_demo(workbench, max_waiting=max_waiting)
    try:
        demo.launch(
            server_name=address.host,
            server_port=address.port,
            auth=address.auth,
            share=False,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            # Else Gradio wants an answer of its own page within 3 s, and a busy machine cannot start the demo.
            # Gradio 6 has no public argument for that.
            _frontend=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=["api"],
            app_kwargs={"middleware": [Middleware(BodyLimit)], "exception_handlers": {503: _say_busy}},
            **launch_options(),
        )
    except OSError as error:
        where = f"{address.host}:{address.port}" if address.port else address.host
        raise UsageError("The demo cannot be served there", f"{where}: {error}", "Choose another --port.") from error
    threading.Thread(target=warm_up, args=(workbench,), name="warm-up", daemon=True).start()
    return demo


def warm_up(workbench: Workbench) -> None:
    """Load the first model while the visitor is still looking around."""
    try:
        if workbench.bundles():
            workbench.recommender()
    except LlaraError as error:
        # The visitor who asks for it is told again, on the page.
        log.warning("the first model cannot be loaded: %s", error)

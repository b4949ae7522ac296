"""A server for one page, on the loopback only, under an address that nobody can guess."""

from __future__ import annotations

import re
import secrets
import sys
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from avprep.view.content import Content
from avprep.view.page import make_page, policy
from shards.errors import show

HOST = "127.0.0.1"
_TOKEN_BYTES = 24
_TIMEOUT_S = 30.0
_NAMES = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
"""What browsers call this machine. Another name that leads here (DNS rebinding) is a stranger's."""


@dataclass(frozen=True)
class _Answer:
    content_type: str
    content: bytes


class PageServer(ThreadingHTTPServer):
    """Serves the page of ``content`` and its files, and nothing else, at ``address``.

    The files are in memory; no path of a request reaches the disk. Raises OSError if ``port`` is
    taken; 0 is any free one.
    """

    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def __init__(self, content: Content, port: int = 0) -> None:
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self.answers = {f"/{token}/": _Answer("text/html; charset=utf-8", make_page(content))}
        for name, file in content.files.items():
            self.answers[f"/{token}/{name}"] = _Answer(content.type_of(name), file)
        self.headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": f"{policy()}; frame-ancestors 'none'",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        super().__init__((HOST, port), _Handler)
        self.address = f"http://{HOST}:{self.server_port}/{token}/"

    def server_bind(self) -> None:
        """Bind without asking a name server for this machine's name, as HTTPServer does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away in the middle of a file is no fault; others are printed."""
        error = sys.exception()
        if not isinstance(error, OSError):
            show(f"a request failed: {type(error).__name__}: {error}", err=True)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = _TIMEOUT_S
    server_version, sys_version = "avprep", ""

    def do_GET(self) -> None:
        answer = self._answer()
        if answer is not None:
            self.wfile.write(answer.content)

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> _Answer | None:
        """Send the head of the answer, or an error, in which case None is returned."""
        if not _NAMES.fullmatch(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.FORBIDDEN, "this page is for this machine only")
            return None
        answer = self.server.answers.get(self.path)
        if answer is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.content)))
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        return answer

    def log_message(self, *_: object) -> None:
        """Requests are not printed."""

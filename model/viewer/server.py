"""The web server of the inspector: the files of its page and the routes of a view, for reading, on 127.0.0.1 alone.

A page of another site must not read the photos through the user's browser: requests are answered only if they name
this machine (a site may point a name of its own at 127.0.0.1, but the browser then sends that name), and the headers
forbid other sites to embed what is sent, and this page to load anything from elsewhere.
"""

from __future__ import annotations

import os
import re
import socketserver
import sys
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from model.viewer.answers import Answer, NotFound, View

ADDRESS = "127.0.0.1"

_OUR_NAMES = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")  # any port: it may come through a tunnel
_PAGE_TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
                               "connect-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
}


class ViewServer(ThreadingHTTPServer):
    """Serves a view; `serve_forever` until `shutdown`.

    Parameters
    ----------
    view : View
        What the page is about.
    port : int
        0 is any that is free. OSError if it is taken.

    Attributes
    ----------
    url : str
        Where the page is.
    """

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # on Windows two servers would share the port

    def __init__(self, view: View, port: int = 0):
        self.routes = [(re.compile(pattern), answer) for pattern, answer in view.routes.items()]
        super().__init__((ADDRESS, port), _Handler)
        self.url = f"http://{ADDRESS}:{self.server_port}/"

    def server_bind(self):
        """Bind without asking a name server what this machine is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request: Any, client_address: Any):
        """Say nothing when the browser goes away before the answer has."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def answer(self, path: str, query: dict[str, str]) -> Answer:
        """Return what there is at a path, from the page or the view; NotFound for nothing."""
        if path in page_files():
            return page_files()[path]
        for pattern, answer in self.routes:
            found = pattern.fullmatch(path)
            if found:
                return answer(query, *found.groups())
        raise NotFound(f"nothing at /{path}")


@cache
def page_files() -> dict[str, Answer]:
    """Return the files of the page by path; that of the page itself is empty."""
    found = {}
    for file in files("model.viewer").joinpath("static").iterdir():
        suffix = file.name[file.name.rfind("."):]
        if suffix in _PAGE_TYPES:
            found[file.name] = Answer(_PAGE_TYPES[suffix], file.read_bytes())
    return {**found, "": found["index.html"]}


class _Handler(BaseHTTPRequestHandler):
    """Answers one browser."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "dualface", ""
    timeout = 60  # seconds, for a connection that says nothing
    server: ViewServer

    def do_GET(self):
        """Answer, or tell in a sentence why not."""
        status, answer = self._answer()
        self.send_response(status)
        content = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
        for name, value in {**_HEADERS, **content}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object):
        """Print nothing."""

    def _answer(self) -> tuple[HTTPStatus, Answer]:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not _OUR_NAMES.fullmatch(hosts[0]):
            return HTTPStatus.FORBIDDEN, _sentence(f"open {self.server.url}; other names are not answered")
        address = urlsplit(self.path)
        try:
            path = unquote(address.path, errors="strict").removeprefix("/")
            return HTTPStatus.OK, self.server.answer(path, dict(parse_qsl(address.query)))
        except (NotFound, FileNotFoundError) as error:
            return HTTPStatus.NOT_FOUND, _sentence(str(error))
        except (OSError, ValueError) as error:  # a damaged sample, say
            return HTTPStatus.INTERNAL_SERVER_ERROR, _sentence(str(error))


def _sentence(text: str) -> Answer:
    return Answer("text/plain; charset=utf-8", text.encode())

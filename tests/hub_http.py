"""The HTTP of a double on loopback: requests, responses, a routing table and a server. It knows nothing of a Hub."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    """What a client sends."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    def says(self, name: str) -> bool:
        """Say whether the query asks for something."""
        return self.query.get(name, ["false"])[0].lower() in ("1", "true")


@dataclass
class Response:
    """What a server sends back; after `cut_after` bytes of the body it hangs up."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer in JSON."""
    return Response(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})


def part_of(content: bytes, asked: str | None) -> Response:
    """Answer with the whole content, or with the bytes that a `Range` header asks for."""
    span = re.fullmatch(r"bytes=(?:(\d+)-(\d*)|-(\d+))", asked or "")
    if span is None:
        return Response(content)
    first = max(len(content) - int(span[3]), 0) if span[3] else int(span[1])
    last = min(int(span[2]), len(content) - 1) if span[2] else len(content) - 1
    if first > last:
        return Response(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
    return Response(content[first : last + 1], 206, {"Content-Range": f"bytes {first}-{last}/{len(content)}"})


class Route(NamedTuple):
    """Which handler answers which requests, and whether they change anything."""

    method: str
    pattern: re.Pattern[str]
    writes: bool
    handler: Callable[..., Response]


class Routes(list[Route]):
    """A routing table. In the templates of its paths, `{name}` stands for one of the groups."""

    def __init__(self, **groups: str) -> None:
        super().__init__()
        self.groups = groups

    def add(self, method: str, template: str, writes: bool = False) -> Callable[[Callable], Callable]:
        """Enter the decorated handler."""
        pattern = re.compile(re.sub(r"\{(\w+)\}", lambda name: self.groups[name[1]], template))

        def enter(handler: Callable[..., Response]) -> Callable[..., Response]:
            self.append(Route(method, pattern, writes, handler))
            return handler

        return enter

    def find(self, request: Request) -> tuple[Route, dict[str, str | None]] | None:
        """Return the route of a request with what its path names. HEAD asks for what GET would send."""
        method = "GET" if request.method == "HEAD" else request.method
        for route in self:
            if route.method == method and (match := route.pattern.fullmatch(request.path)):
                return route, match.groupdict()
        return None


class Server(ThreadingHTTPServer):
    """A server on a free port. `interrupt` is told method and size, and may say after how many bytes it hangs up."""

    def __init__(self, answer: Callable[[Request], Response], interrupt: Callable[[str, int], int | None]) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, answer, interrupt))
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors, but let clients leave whenever they like."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it would hold each body back until the client has confirmed the headers

    def __init__(self, answer: Callable, interrupt: Callable, *arguments: Any) -> None:
        self.answer, self.interrupt = answer, interrupt
        super().__init__(*arguments)

    def serve(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        if (read := self.interrupt(self.command, size)) is not None:
            self.rfile.read(read)
            self.close_connection = True
            return
        target = urlsplit(self.path)
        query, body = parse_qs(target.query), self.rfile.read(size)
        self._send(self.answer(Request(self.command, target.path, query, self.headers, body)))

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in ({"Content-Length": str(len(response.body))} | response.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body[: response.cut_after])
        self.close_connection |= response.cut_after is not None

    def log_message(self, *_: Any) -> None:
        pass

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve  # noqa: N815

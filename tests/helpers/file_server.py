"""A web server on this machine, with the faults that web servers have."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves `content` under every path; how is set by the attributes."""

    content, etag, ranges, redirect = CONTENT, '"1"', True, None
    kind, status = "application/octet-stream", 200
    chunked, delay = False, 0.0
    stops_after: int | None = None  # bytes, then the connection is closed

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []  # the Range of every request
        self.go_on = threading.Event()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}/files/model.pkl"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, span = self.server, self.headers.get("Range")
        server.asked.append(span)
        if server.redirect and not self.path.startswith("/login"):
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        start, size = 0, len(server.content)
        same = self.headers.get("If-Range") in (None, server.etag)
        if span and server.ranges and same:
            start = int(span.removeprefix("bytes=").rstrip("-"))
        past = start > 0 and start >= size
        self.send_response(416 if past else server.status if start == 0 else 206)
        if start:
            self.send_header(
                "Content-Range", f"bytes */{size}" if past else f"bytes {start}-{size - 1}/{size}"
            )
        body = b"" if past else server.content[start:]
        if not server.chunked:
            self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Type", server.kind)
        self.end_headers()
        if server.delay:
            server.go_on.wait(server.delay)
        with contextlib.suppress(ConnectionError):  # who asked has gone
            self.wfile.write(body if server.stops_after is None else body[: server.stops_after])

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(make=Server):
    with make() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

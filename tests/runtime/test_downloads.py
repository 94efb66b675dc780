"""Downloads, from a server on this machine: whole or not at all, gone on with, one line for what fails."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mclr_fast.runtime import downloads
from mclr_fast.runtime.downloads import fetch, place_of
from mclr_fast.runtime.errors import Interrupted, RunError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content` under every path; how is set by the attributes."""

    content, etag, ranges, kind, redirect, status = (
        CONTENT,
        '"1"',
        True,
        "application/octet-stream",
        None,
        200,
    )
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
        self.wfile.write(body if server.stops_after is None else body[: server.stops_after])

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


def part_of(server):
    place = place_of(server.address)
    return place.with_name(f"{place.name}.part")


def refused(server, **options):
    with pytest.raises(RunError) as error:
        fetch(server.address, **options)
    assert "\n" not in str(error.value)
    assert not place_of(server.address).exists()
    return str(error.value)


def cut(server, after=300_000):
    """A first try that was cut short."""
    server.stops_after = after
    text = refused(server)
    server.stops_after = None
    assert part_of(server).read_bytes() == CONTENT[:after]
    return text


def test_a_file_is_downloaded_once_under_its_name(server, capsys):
    path = fetch(server.address, sha256=SHA256, note="licence CC0")
    assert path.name == "model.pkl" and path.read_bytes() == CONTENT
    assert "model.pkl (1.0 MB; licence CC0) to" in capsys.readouterr().err
    assert fetch(server.address) == path and len(server.asked) == 1
    assert {p.name for p in path.parent.iterdir()} == {"model.pkl", "model.pkl.lock"}


def test_a_download_cut_short_goes_on_where_it_stopped(server):
    assert "was cut short (the connection was closed): 300,000 of 1,024,000 bytes are here" in cut(server)
    assert fetch(server.address, sha256=SHA256[:8]).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"]


def test_it_begins_again_where_the_server_knows_no_ranges(server):
    server.ranges = False
    cut(server)
    assert fetch(server.address).read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"2"', None])
def test_it_begins_again_where_the_file_has_changed(server, etag):
    """By the server's own word, or, of a server that gives none, by the size."""
    server.etag = etag and '"1"'
    cut(server)
    server.etag, server.content = etag, CONTENT[::-1] + b"more"
    assert fetch(server.address).read_bytes() == server.content


def test_a_whole_part_is_only_renamed(server):
    cut(server)
    part_of(server).write_bytes(CONTENT)
    assert fetch(server.address, sha256=SHA256).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_dropped(server):
    cut(server)
    part_of(server).write_bytes(CONTENT + b"more")
    assert fetch(server.address, sha256=SHA256).read_bytes() == CONTENT


def test_a_size_that_is_not_told_is_none(server):
    server.chunked = True
    assert fetch(server.address).read_bytes() == CONTENT


def test_a_wrong_hash_is_not_kept(server):
    text = refused(server, sha256="0" * 64)
    assert f"its SHA-256 is {SHA256}, not 000" in text and not part_of(server).exists()


@pytest.mark.parametrize("after_login", [False, True])
def test_a_web_page_is_no_file(server, after_login):
    server.content, server.kind = b" <!DOCTYPE html><p>Log in", "text/html" if after_login else "text/plain"
    server.redirect = "/login?from=secret" if after_login else None
    text = refused(server)
    assert not part_of(server).exists()
    assert "a web page, not a file" in text and "secret" not in text
    assert ("leads to" in text and "/login," in text) == after_login


def test_an_error_of_the_server_is_told(server):
    server.status = 404
    assert "does not answer with the file but: 404 Not Found" in refused(server)


def test_an_address_that_does_not_answer(server, monkeypatch):
    server.delay = 5.0
    assert "the connection" not in (text := refused(server, timeout=0.1)) and "timed out" in text
    server.go_on.set()
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    text = refused(server)
    assert "through the proxy 127.0.0.1:9" in text and "refused" in text and "secret" not in text


def test_a_proxy_that_refuses(server, monkeypatch):
    server.status = 407
    monkeypatch.setenv("http_proxy", server.address.removesuffix("/files/model.pkl"))
    monkeypatch.setenv("no_proxy", "")
    assert "refuses" in (text := refused(server)) and "407" in text and "no_proxy" in text


def test_a_full_disk(server, monkeypatch):
    usage = downloads.shutil.disk_usage(".")
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    text = refused(server)
    assert "No space left on device (1 MB are needed)" in text and "MCLR_FAST_CACHE" in text
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(downloads.os, "fsync", lambda _: (_ for _ in ()).throw(full))
    assert "cannot keep model.pkl" in refused(server)


def test_a_cache_that_cannot_be_made(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path / "file"))
    with pytest.raises(RunError, match=r"cannot keep model\.pkl in .*: Not a directory"):
        fetch(server.address)


def test_https_never_leads_to_http():
    request = downloads.Request("https://there/model.pkl")
    with pytest.raises(RunError, match=r"leads from https to http://here/model\.pkl"):
        downloads._NoDowngrade().redirect_request(request, None, 302, "", {}, "http://here/model.pkl?a=b")


def test_an_address_without_a_file():
    with pytest.raises(RunError, match="https://there/ names no file"):
        place_of("https://there/")
    one, other = place_of("https://there/a.pkl?version=1"), place_of("https://there/a.pkl?version=2")
    assert one != other and one.name == other.name == "a.pkl"
    assert place_of("https://there/..%2Fa.pkl").parent.parent == one.parent.parent


def test_a_signal_ends_it_and_keeps_the_part(server, monkeypatch):
    def check_stop():
        raise Interrupted

    monkeypatch.setattr(downloads, "check_stop", check_stop)
    with pytest.raises(Interrupted):
        fetch(server.address)
    assert CONTENT.startswith(part_of(server).read_bytes()) and part_of(server).stat().st_size
    monkeypatch.undo()


def test_two_that_ask_at_once_download_once(server):
    server.delay, found = 0.3, []
    threads = [threading.Thread(target=lambda: found.append(fetch(server.address))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and len(server.asked) == 1
    assert found[0].read_bytes() == CONTENT


def test_two_processes_download_once(server):
    """Of them one is a node's second rank, which waits for the first."""
    program = "import sys; from mclr_fast.runtime.downloads import fetch; print(fetch(sys.argv[1]))"
    command, pipes = (
        [sys.executable, "-c", program, server.address],
        {"stdout": subprocess.PIPE, "text": True},
    )
    with subprocess.Popen(command, **pipes, env={**os.environ, "LOCAL_RANK": "1"}) as second:
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(0.5)
        assert not server.asked
        path = fetch(server.address)
        assert Path(second.communicate(timeout=60)[0].strip()) == path
    assert len(server.asked) == 1

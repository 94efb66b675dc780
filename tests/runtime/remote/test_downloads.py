"""Downloads, from a server on this machine: whole or not at all, gone on with, one line for what fails."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from file_server import CONTENT

from mclr_fast.runtime import disk
from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.runtime.remote import downloads
from mclr_fast.runtime.remote.downloads import fetch, place_of

SHA256 = hashlib.sha256(CONTENT).hexdigest()


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
    assert {p.name for p in path.parent.iterdir()} == {"model.pkl"}


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
    usage = disk.shutil.disk_usage(".")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    text = refused(server)
    assert "No space left on device (1 MB are needed)" in text and "MCLR_FAST_CACHE" in text
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
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
    program = "import sys; from mclr_fast.runtime.remote.downloads import fetch; print(fetch(sys.argv[1]))"
    command, pipes = (
        [sys.executable, "-c", program, server.address],
        {"stdout": subprocess.PIPE, "text": True},
    )
    place = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }
    with subprocess.Popen(command, **pipes, env={**os.environ, **place}) as second:
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(0.5)
        assert not server.asked
        path = fetch(server.address)
        assert Path(second.communicate(timeout=60)[0].strip()) == path
    assert len(server.asked) == 1

"""Files by https address: downloaded once, to a cache that all processes of a machine share."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener, getproxies, proxy_bypass

from .. import locks
from ..disk import free_bytes, mend, reason, sync
from ..errors import RunError
from ..files import file_sha256
from ..process.launch import is_first_of_node
from ..process.signals import check_stop
from ..stages import progress_bar

TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 20  # bytes between looks at signals
PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)
CUT = (http.client.HTTPException, OSError)  # what reading from a connection that breaks raises


def is_address(text: str) -> bool:
    """Whether that is a web address, and no path."""
    return text.lower().startswith(("https://", "http://"))


def cache_folder() -> Path:
    """MCLR_FAST_CACHE, or ~/.cache/mclr_fast."""
    return Path(os.environ.get("MCLR_FAST_CACHE") or "~/.cache/mclr_fast").expanduser()


def place_of(address: str) -> Path:
    """Where the file of an address lies once it is downloaded. RunError for one that names no file."""
    name = unquote(urlsplit(address).path).rpartition("/")[2]
    if not name or not name.isprintable() or name.startswith("."):
        raise RunError(f"{shown(address)} names no file.")
    return cache_folder() / hashlib.sha256(address.encode()).hexdigest()[:12] / name


def shown(address: str) -> str:
    """The address without what may be secret in it: a user's password, the query."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def opened(request: Request, timeout: float) -> http.client.HTTPResponse:
    """The answer to a request, redirects followed, but never from https to http."""
    return build_opener(_NoDowngrade).open(request, timeout=timeout)


def fetch(
    address: str,
    *,
    place: Path | None = None,
    token: str | None = None,
    sha256: str | None = None,
    note: str = "",
    timeout: float = TIMEOUT,
) -> Path:
    """Download the file at an address, unless the cache has it, and give its path.

    Of the processes that ask at the same time one downloads and the others wait; of a node's ranks it is the
    first. What arrives lies in <name>.part until it is whole, checked and synced, so a download that was cut
    short goes on where it stopped (Range), as long as the server still has the same file (If-Range).

    Args: place: where to keep it, `place_of` by default. token: sent to the address's own host alone.
        sha256: the file's hash, or its first 8 or more digits, where one is published; looked at when the
        file arrives. note: what the user is told beside the address, such as the licence.
    Errors    RunError, one line, for an address that does not answer or answers with an error or a web page,
              a proxy that refuses, a download cut short, a wrong hash, a full disk. Interrupted.
    """
    place = place or place_of(address)
    if not is_first_of_node():  # where the first fails, torchrun ends the others
        while not place.is_file():
            check_stop()
            time.sleep(locks.LOOK_EVERY)
        return place
    if place.is_file():
        return place
    try:
        with locks.waited_for_alone(place.with_name(f"{place.name}.lock"), check_stop):
            if not place.is_file():
                _Download(address, place, timeout, note, token).run(sha256)
    except OSError as error:
        raise _cannot_keep(place, error) from error
    return place


class _Download:
    """One file on its way, `held` bytes of it already in `part`; OSErrors are the disk's."""

    def __init__(self, address: str, place: Path, timeout: float, note: str, token: str | None):
        self.address, self.place, self.timeout, self.note = address, place, timeout, note
        self.token = token
        self.part = place.with_name(f"{place.name}.part")
        self.known = place.with_name(f"{place.name}.part.json")  # of the part's file: its version, its size
        self.total: int | None = None

    @property
    def held(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def run(self, sha256: str | None) -> None:
        """Ask for what is missing; check; rename."""
        response = self._ask(self.held)
        if response is not None and response.status == 206 and not self._goes_on(response):
            response.close()
            self._forget()
            response = self._ask(0)
        if response is not None:
            with response:
                self._receive(response)
        if sha256 is not None and not (found := file_sha256(self.part)).startswith(sha256.lower()):
            self._forget()
            raise RunError(
                f"{shown(self.address)} is not the file that was published: its SHA-256 is {found}, not "
                f"{sha256}. It was not kept; run the same command again, or put the right file at "
                f"{self.place}."
            )
        os.replace(self.part, self.place)
        self.known.unlink(missing_ok=True)

    def _ask(self, start: int) -> http.client.HTTPResponse | None:
        """The server's answer from byte `start` on; None where there is nothing after it."""
        headers = {"User-Agent": "mclr_fast", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if version := self._known("version"):
                headers["If-Range"] = version
        request = Request(self.address, headers=headers)
        if self.token:
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        try:
            return opened(request, self.timeout)
        except HTTPError as error:
            with error:
                if error.code == 416 and start:  # the part is whole, or of another file
                    if error.headers.get("Content-Range") == f"bytes */{start}":
                        return None
                    self._forget()
                    return self._ask(0)
                self._refused(f"{error.code} {error.reason}", error.code == 407)
        except URLError as error:
            reason = getattr(error.reason, "strerror", None) or str(error.reason)
            self._refused(reason, "Tunnel connection failed" in reason)
        except (ValueError, *CUT) as error:
            self._refused(str(error) or type(error).__name__, False)

    def _refused(self, reason: str, by_proxy: bool) -> NoReturn:
        reason = " ".join(reason.split())
        scheme, host = urlsplit(self.address).scheme, urlsplit(self.address).hostname or ""
        proxy = None if proxy_bypass(host) else getproxies().get(scheme)
        proxy = proxy and (urlsplit(proxy).netloc or proxy).rpartition("@")[2]
        otherwise = f"or put the file at {self.place}"
        if by_proxy:
            raise RunError(
                f"the proxy {proxy} refuses {shown(self.address)} ({reason}): look at {scheme}_proxy and "
                f"no_proxy, {otherwise}."
            )
        through = f" through the proxy {proxy}" if proxy else ""
        raise RunError(
            f"{shown(self.address)} does not answer{through} with the file but: {reason}. Look at the "
            f"address and the network, {otherwise}."
        )

    def _receive(self, response: http.client.HTTPResponse) -> None:
        """Append to the part what comes, or begin it again where the server sends the whole file."""
        start = self.held if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        self.total = start + int(length) if length and length.isdecimal() else None
        self._check_room(start)
        blocks = self._blocks(response)
        first = next(blocks, b"")
        self._check_no_page(response, first if start == 0 else b"")
        self._keep_known(response)
        size = None if self.total is None else f"{self.total / 1e6:,.1f} MB"
        told = "; ".join(filter(None, [size, self.note]))
        beside = f" ({told})" if told else ""
        print(f"downloading {shown(self.address)}{beside} to {self.place}", file=sys.stderr)
        with (
            open(self.part, "ab" if start else "wb") as file,
            progress_bar(self.place.name, self.total, start, True, unit="B", scaled=True) as bar,
        ):
            while first:
                file.write(first)
                bar.update(len(first))
                file.flush()
                check_stop()
                first = next(blocks, b"")
            sync(file)
        if self.total is not None and self.held != self.total:
            self._cut("the connection was closed")

    def _goes_on(self, response: http.client.HTTPResponse) -> bool:
        """Whether the answer is the rest of the file whose beginning is here."""
        span = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        total = self._known("total")
        return span is not None and int(span[1]) == self.held and span[2] in ("*", str(total or span[2]))

    def _blocks(self, response: http.client.HTTPResponse):
        while True:
            try:
                block = response.read1(BLOCK)
            except CUT as error:
                self._cut(str(error) or type(error).__name__)
            if not block:
                return
            yield block

    def _cut(self, reason: str) -> NoReturn:
        of = f" of {self.total:,}" if self.total is not None else ""
        raise RunError(
            f"the download of {shown(self.address)} was cut short ({reason}): {self.held:,}{of} bytes are "
            "here. Run the same command again to go on."
        )

    def _check_room(self, start: int) -> None:
        needed = (self.total or 0) - start
        free = free_bytes(self.part.parent)
        if free is not None and needed > free:
            raise OSError(errno.ENOSPC, f"No space left on device ({needed / 1e6:,.0f} MB are needed)")

    def _check_no_page(self, response: http.client.HTTPResponse, first: bytes) -> None:
        kind = response.headers.get_content_type() if "Content-Type" in response.headers else ""
        if kind == "text/html" or PAGE.match(first):
            final = shown(response.url)
            led = "is" if final == shown(self.address) else f"leads to {final},"
            raise RunError(
                f"{shown(self.address)} {led} a web page, not a file: look at the address (a page may ask to "
                f"log in first), or put the file at {self.place}."
            )

    def _known(self, key: str) -> str | int | None:
        with suppress(OSError, ValueError, AttributeError):
            return json.loads(self.known.read_text()).get(key)
        return None

    def _keep_known(self, response: http.client.HTTPResponse) -> None:
        etag = response.headers.get("ETag", "W/")  # a weak one does not say that bytes are equal
        version = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
        self.known.write_text(json.dumps({"version": version, "total": self.total}))

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.known.unlink(missing_ok=True)


class _NoDowngrade(HTTPRedirectHandler):
    """Follows redirects, but never from https to http: what arrives is used without a hash."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise RunError(f"{shown(req.full_url)} leads from https to {shown(newurl)}: not followed.")
        onward = super().redirect_request(req, fp, code, msg, headers, newurl)
        secret = req.unredirected_hdrs.get("Authorization")
        if onward is not None and secret and urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]:
            onward.add_unredirected_header("Authorization", secret)  # renamed, on the same host
        return onward


def _cannot_keep(place: Path, error: OSError) -> RunError:
    return RunError(
        f"cannot keep {place.name} in {place.parent}: {reason(error)}. {mend(error)} (MCLR_FAST_CACHE names "
        "it), then run the same command again."
    )

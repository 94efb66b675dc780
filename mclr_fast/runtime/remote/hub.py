"""Repositories of the Hugging Face hub (hf:USER/NAME@REVISION), read by plain https."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request

from ..errors import RunError, one_line
from ..files import write_json
from ..logs import note
from .downloads import CUT, TIMEOUT, cache_folder, fetch, opened

SCHEME = "hf:"
PART = r"[A-Za-z0-9][\w.-]{0,95}"
ADDRESS = re.compile(rf"hf:(?P<repo>{PART}/{PART})(?:@(?P<revision>[\w./-]+))?")
COMMIT = re.compile("[0-9a-f]{40}")
FORM = "hf:USER/NAME, or hf:USER/NAME@REVISION with a branch, a tag or a commit"


@dataclass(frozen=True)
class Repository:
    """A model repository of the hub, at a branch, a tag or a commit."""

    name: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}" + (f"@{self.revision}" if self.revision != "main" else "")

    @property
    def page(self) -> str:
        """Where people look at it."""
        return f"{endpoint()}/{self.name}"

    @property
    def folder(self) -> Path:
        """Where its files lie once they are downloaded, a folder for each commit."""
        return cache_folder() / "hub" / self.name.replace("/", "--")


@dataclass(frozen=True)
class Listing:
    """The files of a repository at a commit, by name: "sha256" of large ones, git's "blob" of others."""

    commit: str
    files: dict[str, dict[str, str]]


def is_hub_address(text: object) -> bool:
    """Whether that means the hub."""
    return isinstance(text, str) and text.startswith(SCHEME) and not text.startswith(f"{SCHEME}/")


def parse(text: str) -> Repository:
    """hf:USER/NAME[@REVISION]. ValueError for another form."""
    found = ADDRESS.fullmatch(text)
    if found is None or re.search(r"--|\.\.|\.git$", found["repo"]):
        raise ValueError(f"{text} names no model of the hub: write {FORM}.")
    return Repository(found["repo"], found["revision"] or "main")


def endpoint() -> str:
    """HF_ENDPOINT, or the hub's own."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def token() -> str | None:
    """HF_TOKEN, or what `hf auth login` left; None where there is neither."""
    if said := os.environ.get("HF_TOKEN", "").strip():
        return said
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    with suppress(OSError, RuntimeError):
        kept = Path(os.environ.get("HF_TOKEN_PATH") or home / "token").expanduser()
        return kept.read_text(encoding="utf-8").strip() or None
    return None


def owners() -> list[str]:
    """Whose repositories the token is for: its user's own and those of the user's organizations.

    Errors    RunError, one line, without a token or network, or where the hub refuses the token.
    """
    if token() is None:
        raise RunError("the hub is not told who you are: set HF_TOKEN to a token with the right to write "
                       f"({endpoint()}/settings/tokens), or log in by `hf auth login`.")  # fmt: skip
    try:
        said = _ask("/api/whoami-v2")
    except HTTPError as error:
        raise RunError(
            f"{endpoint()} does not take this token ({error.code} {error.reason}): look at HF_TOKEN, or log "
            "in again by `hf auth login`."
        ) from None
    except ConnectionError as error:
        raise RunError(str(error)) from None
    return [said["name"], *(each["name"] for each in said.get("orgs", ()))]


def listing(repository: Repository) -> Listing:
    """What files it has now; what it had when it was last asked where the hub does not answer.

    A commit is asked about once. Errors: RunError, one line.
    """
    kept = repository.folder / f"{repository.revision.replace('/', '--')}.json"
    known = kept_listing(repository)
    if known is not None and COMMIT.fullmatch(repository.revision):
        return known
    address = f"/api/models/{repository.name}/revision/{quote(repository.revision, safe='')}?blobs=true"
    try:
        found = _listed(_ask(address), repository)
    except HTTPError as error:
        raise _refusal(error, repository) from None
    except ConnectionError as error:
        if known is None:
            raise RunError(str(error)) from error
        note(f"{error} {repository} is taken as it was when last asked: commit {known.commit}.")
        return known
    with suppress(OSError, RunError):  # kept for times without network alone
        write_json(kept, asdict(found))
    return found


def kept_listing(repository: Repository) -> Listing | None:
    """What files it had when it was last asked; None if it never was."""
    kept = repository.folder / f"{repository.revision.replace('/', '--')}.json"
    with suppress(OSError, ValueError, TypeError):
        return Listing(**json.loads(kept.read_text(encoding="utf-8")))
    return None


def place_in(repository: Repository, commit: str, name: str) -> Path:
    """Where a file of that commit lies once it is downloaded."""
    return repository.folder / commit / name


def fetch_file(repository: Repository, listed: Listing, name: str, said: str = "") -> Path:
    """Download one file, unless it is here, and see that its digest is the hub's. RunError, Interrupted."""
    digests = listed.files[name]
    place = place_in(repository, listed.commit, name)
    address = f"{endpoint()}/{repository.name}/resolve/{listed.commit}/{quote(name)}"
    fetch(address, place=place, token=token(), sha256=digests.get("sha256"), note=said)
    if "sha256" not in digests and "blob" in digests:
        content = place.read_bytes()
        if hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() != digests["blob"]:
            place.unlink(missing_ok=True)
            raise RunError(f"{name} of {repository} did not arrive as the hub has it: run the command again.")
    return place


def _listed(answer: Any, repository: Repository) -> Listing:
    try:
        files = {file["rfilename"]: _digests(file) for file in answer["siblings"]}
        if not COMMIT.fullmatch(answer["sha"]):
            raise ValueError("its commit is none")
        return Listing(answer["sha"], files)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{endpoint()} does not describe {repository} as the hub does ({error!r}).") from None


def _digests(file: Mapping[str, Any]) -> dict[str, str]:
    if sha256 := (file.get("lfs") or {}).get("sha256"):
        return {"sha256": sha256}
    return {"blob": file["blobId"]} if file.get("blobId") else {}


def _ask(address: str) -> Any:
    """The hub's JSON. HTTPError where it refuses; ConnectionError, one line, where it does not answer."""
    request = Request(endpoint() + address, headers={"User-Agent": "mclr_fast"})
    if secret := token():
        request.add_unredirected_header("Authorization", f"Bearer {secret}")
    try:
        with opened(request, TIMEOUT) as response:
            return json.loads(response.read())
    except HTTPError as error:
        error.close()
        if error.code >= 500 or error.code == 429:
            raise ConnectionError(
                f"{endpoint()} does not answer now ({error.code} {error.reason})."
            ) from None
        raise
    except ValueError as error:
        raise RunError(f"{endpoint()} answers with no JSON ({error}): look at HF_ENDPOINT.") from None
    except CUT as error:
        words = one_line(getattr(error, "reason", None) or error)
        raise ConnectionError(f"{endpoint()} does not answer ({words}): look at the network.") from None


def _refusal(error: HTTPError, repository: Repository) -> RunError:
    kind, code = error.headers.get("X-Error-Code", ""), error.code
    if kind == "RevisionNotFound":
        return RunError(f"{repository.page} has no revision {repository.revision!r}: look at its branches.")
    if kind == "GatedRepo":
        return RunError(f"{repository.page} asks to accept its terms first: do so there, then set HF_TOKEN.")
    if code in (401, 403, 404):
        may = "with this token" if token() else "without a token (HF_TOKEN, or `hf auth login`)"
        return RunError(f"{repository} is not there, or cannot be read {may}: look at {repository.page}.")
    return RunError(f"{endpoint()} refuses {repository}: {code} {error.reason}.")

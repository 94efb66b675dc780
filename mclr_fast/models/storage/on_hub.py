"""Models in repositories of the hub: config.json, model.safetensors, and a VQVAE in a folder beside them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from mclr_fast.runtime import formats
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.remote import hub

FILES = ("config.json", "model.safetensors")
FOLDER = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class HubModel:
    """A model of the hub that may not be here yet; told of as `published.Published` is."""

    repository: hub.Repository

    @cached_property
    def place(self) -> Path:
        """Where its files are, or will be."""
        known = hub.kept_listing(self.repository)
        return self.repository.folder / (known.commit if known else self.repository.revision)

    @property
    def is_here(self) -> bool:
        """Whether nothing would be downloaded, as far as is known without asking."""
        return all((self.place / name).is_file() for name in FILES)

    def description(self) -> dict[str, Any]:
        """Its config.json, all that is downloaded for that. Errors: as `local`."""
        return formats.model(_said(_config(self.repository, _listed(self.repository))))

    def __str__(self) -> str:
        return f"{self.repository.page} ({self.repository}; its card says the licence)"


def find(text: object) -> HubModel | None:
    """What hf:USER/NAME[@REVISION] stands for; None for anything else. ValueError for another form of it."""
    return HubModel(hub.parse(str(text))) if hub.is_hub_address(text) else None


def pinned(text: str) -> str:
    """The address with the commit that it means now; any other text as it is."""
    return f"{hub.SCHEME}{hub.parse(text).name}@{local(text).name}" if hub.is_hub_address(text) else text


@cache
def local(text: str) -> Path:
    """The folder of a model of the hub, downloaded first; for one process an address means one commit.

    Errors: RunError, one line; ValueError for an address of another form.
    """
    repository = hub.parse(text)
    listed = _listed(repository)
    config = _config(repository, listed)
    hub.fetch_file(
        repository, listed, "model.safetensors", f"licence {_said(config).get('licence') or 'unknown'}"
    )
    for name in _beside(config, listed):
        hub.fetch_file(repository, listed, name)
    return config.parent


def _listed(repository: hub.Repository) -> hub.Listing:
    """Its files, a model's among them. RunError, one line."""
    listed = hub.listing(repository)
    if missing := [name for name in FILES if name not in listed.files]:
        there = ", ".join(sorted(listed.files)[:8]) or "nothing"
        raise RunError(
            f"{repository} is no model of mclr_fast: {' and '.join(missing)} missing (it has {there}). "
            "Another program's file is named by its https address."
        )
    return listed


def _config(repository: hub.Repository, listed: hub.Listing) -> Path:
    """config.json, once it is known to describe a model of ours."""
    path = hub.fetch_file(repository, listed, "config.json")
    try:
        said = json.loads(path.read_bytes())
    except ValueError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("net"), dict):
        raise RunError(f"{repository} is no model of mclr_fast: its config.json has no 'net'.")
    return path


def _said(config: Path) -> dict[str, Any]:
    return json.loads(config.read_bytes())


def _beside(config: Path, listed: hub.Listing) -> list[str]:
    """The files of the VQVAE that config.json says lies in a folder of the repository."""
    folder = _said(config)["net"].get("vqvae")
    if not isinstance(folder, str) or not FOLDER.fullmatch(folder):
        return []
    return [name for name in (f"{folder}/{file}" for file in FILES) if name in listed.files]

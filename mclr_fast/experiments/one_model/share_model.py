"""The work of the door `share`: what of a folder is uploaded, and the upload."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mclr_fast.config import ShareConfig
from mclr_fast.models import load, resolve
from mclr_fast.models.storage.card import NAME as CARD
from mclr_fast.models.storage.card import card, displaced, licence_of
from mclr_fast.models.storage.on_hub import FILES
from mclr_fast.runtime.errors import RunError, one_line
from mclr_fast.runtime.logs import note
from mclr_fast.runtime.remote import hub

VQVAE = "vqvae"  # the folder of a VAR model's VQVAE beside it
LICENSE = re.compile(r"^license:\s*[\"']?([\w.-]+)", re.MULTILINE)
Content = Path | bytes


@dataclass(frozen=True)
class Upload:
    """What goes to the hub: contents by name, and what of the folder stays here."""

    files: dict[str, Content]
    left_out: list[str]
    config: dict[str, Any]

    def lines(self) -> Iterator[str]:
        """In words, a line a file."""
        yield f"licence {licence_of(self.config) or 'unknown (--licence says it)'}"
        for name, content in self.files.items():
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            yield f"  {name:24} {size:>15,} bytes"
        if self.left_out:
            yield f"left out: {', '.join(self.left_out)}"


def share(config: ShareConfig) -> Iterator[str]:
    """Upload a model, or with --dry-run say what would be; lines for the user. RunError for mistakes."""
    try:
        repository = hub.parse(config.to)
        upload = collect(config, repository)
    except (ValueError, OSError) as error:
        raise RunError(str(error)) from error
    if config.dry_run:
        yield f"would upload to {repository} ({repository.page}):"
        yield from upload.lines()
        return
    visible = _push(config, repository, upload)
    yield from upload.lines()
    yield f"{visible}: {repository.page}"
    yield f"python -m mclr_fast.sample {repository} --seeds 0-15 --outdir samples"


def collect(config: ShareConfig, repository: hub.Repository) -> Upload:
    """What would be uploaded, checked: it loads, its licence is one, its paths tell nothing of this machine.

    Errors    RunError, ValueError or OSError.
    """
    if repository.revision != "main":
        raise RunError(f"--to {config.to} names a revision: models are uploaded to main, so leave it out.")
    folder = _model_folder(config.source)
    load(folder)  # what cannot be read here can be read nowhere
    told = json.loads((folder / "config.json").read_bytes())
    said = _licensed(told, config.licence)
    said, beside = _with_vqvae(_displaced(said), folder)
    files: dict[str, Content] = {
        CARD: _card(folder, told, said, repository),
        "config.json": (json.dumps(said, indent=1) + "\n").encode(),
        "model.safetensors": folder / "model.safetensors",
        **beside,
        **(_report(Path(config.source), folder) if config.with_report else {}),
    }
    names = {name.partition("/")[0] for name in files} | {VQVAE}
    left_out = sorted(path.name for path in folder.iterdir() if path.name not in names)
    return Upload(files, left_out, said)


def _model_folder(source: str) -> Path:
    """The model in a folder. RunError for what is never given away, and for what is no model."""
    path = Path(source)
    if path.is_file() and path.name not in FILES:
        raise RunError(
            f"{source} is a file: make a model folder of it, python -m mclr_fast.convert {source} DST."
        )
    try:
        folder = resolve(source)
    except FileNotFoundError:
        if path.is_dir() and next(path.rglob("*.distcp"), None) is not None:
            raise RunError(
                f"{source} holds the states of a training that has no model yet, and states are not shared."
            ) from None
        if (path / "dataset.json").is_file():
            raise RunError(f"{source} holds images, and data are not shared: name a model folder.") from None
        raise
    if folder.is_file():
        raise RunError(f"{source} is another program's file: make a model folder of it by mclr_fast.convert.")
    return folder


def _licensed(said: dict[str, Any], licence: str | None) -> dict[str, Any]:
    """config.json with --licence, where it knows none."""
    known = licence_of(said)
    if licence is None or licence == known:
        return said
    if known is not None:
        raise RunError(
            f"--licence {licence}: config.json says {known}, which what is made of the model keeps: leave "
            "--licence out."
        )
    return said | {"licence": licence}


def _displaced(said: Any) -> Any:
    """The same, paths without where on this machine they lead; a VQVAE's is looked at later."""
    if isinstance(said, dict):
        return {name: each if name == "net" else _displaced(each) for name, each in said.items()}
    if isinstance(said, list):
        return [_displaced(each) for each in said]
    return displaced(said) if isinstance(said, str) else said


def _with_vqvae(said: dict[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, Content]]:
    """config.json and the files of the VQVAE that it names by a path, in a folder beside it."""
    named = said["net"].get("vqvae")
    places = [place for place in (folder / named, Path(named)) if place.exists()] if named else []
    if not places:
        return said, {}  # none, or one that is known by name
    if not places[0].is_dir():
        raise RunError(
            f"the VQVAE {named} is another program's file: make a folder of it by mclr_fast.convert, and "
            'name that in config.json, under "net", as "vqvae".'
        )
    found = resolve(places[0])
    config = _displaced(json.loads((found / "config.json").read_bytes()))
    files = {"config.json": (json.dumps(config, indent=1) + "\n").encode(), FILES[1]: found / FILES[1]}
    net = said["net"] | {"vqvae": VQVAE}
    return said | {"net": net}, {f"{VQVAE}/{name}": content for name, content in files.items()}


def _card(folder: Path, told: dict[str, Any], said: dict[str, Any], repository: hub.Repository) -> bytes:
    """README.md: the folder's, where somebody wrote in it, else config.json's. RunError: another licence."""
    own = folder / CARD
    text = own.read_text(encoding="utf-8") if own.is_file() else None
    made = card(said, str(repository))
    if text is None or text == card(told):
        return made.encode()
    front = text.split("---\n")[1] if text.startswith("---\n") else ""
    found, wanted = LICENSE.search(front), LICENSE.search(made)
    if found is None or found[1] != wanted[1]:
        raise RunError(
            f"{own} says licence {found[1] if found else 'nowhere, in its first lines'}, config.json means "
            f"{wanted[1]}: mend the card, or remove it, and one is made of config.json."
        )
    return text.encode()


def _report(source: Path, folder: Path) -> dict[str, Content]:
    """report.html and the figures of the run that the model is of. RunError where there is none."""
    for run in (source, *folder.parents[:2]):
        if (run / "report.html").is_file():
            figures = sorted((run / "figures").glob("*.png"))
            return {"report.html": run / "report.html", **{f"figures/{path.name}": path for path in figures}}
    raise RunError(f"--with-report: {source} has no report.html: python -m mclr_fast.report writes a run's.")


def _push(config: ShareConfig, repository: hub.Repository, upload: Upload) -> str:
    """Make the repository where there is none, and one commit -> its visibility. RunError, one line."""
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.utils import disable_progress_bars
    except ImportError:
        raise RunError('uploading needs huggingface_hub: pip install "mclr_fast[hub]".') from None
    owners, owner = hub.owners(), repository.name.partition("/")[0]
    if owner.lower() not in {each.lower() for each in owners}:
        raise RunError(
            f"{repository} is {owner}'s, and this token is for {', '.join(owners)}: change --to or HF_TOKEN."
        )
    if licence_of(upload.config) is None:
        note(f"nobody may know what {repository} may be used for: --licence says it.")
    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi(endpoint=hub.endpoint(), token=hub.token(), library_name="mclr_fast")
    added = [CommitOperationAdd(name, content) for name, content in upload.files.items()]
    try:
        api.create_repo(repository.name, private=config.private, exist_ok=True)
        is_private = bool(api.model_info(repository.name).private)
        if is_private or not config.private:
            api.create_commit(repository.name, added, commit_message="A model of mclr_fast")
    except Exception as error:  # of huggingface_hub and whichever client it uses below
        raise _refused(error, repository) from error
    if config.private and not is_private:
        raise RunError(f"--private: {repository.page} is there and public; nothing was uploaded.")
    return "private" if is_private else "public"


def _refused(error: Exception, repository: hub.Repository) -> RunError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return RunError(
            f"the hub does not let this token write to {repository} ({status}): give HF_TOKEN one with that "
            "right."
        )
    return RunError(f"the upload to {repository} failed: {one_line(error)}. Run the same command again.")

"""Files that are no model, known by their first bytes and named for what they are."""

from __future__ import annotations

import re
import struct

LOOK = 1024  # bytes at the start that tell
LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/v\d.*?\nsize (\d+)", re.DOTALL)
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|!--)", re.IGNORECASE)
XML = re.compile(rb"(\xef\xbb\xbf)?\s*<(\?xml|error>)", re.IGNORECASE)
JSON = re.compile(rb'(\xef\xbb\xbf)?\s*(\{\s*["}]|\[\s*["{\[])')
COMPRESSED = {  # how a file starts -> what compressed it
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"7z\xbc\xaf\x27\x1c": "7-zip",
    b"x\x9c": "zlib",
    b"x\x01": "zlib",
    b"x\xda": "zlib",
}
OTHERS = {
    b"\x93NUMPY": "an array of numpy's (.npy)",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GGUF": "a GGUF file",
    b"%PDF": "a PDF",
}


def foreign(start: bytes, size: int) -> str | None:
    """What a file is and what to do, in words that follow "it is"; None for what may be a model.

    Args: start: its first LOOK bytes; size: of all of it.
    """
    if size == 0:
        return "empty: download or copy it again."
    if pointer := LFS.match(start):
        return (
            f"a git-lfs pointer, {size} bytes that stand for a file of {int(pointer[1]):,}: run "
            "`git lfs pull` in its repository, or download the file itself."
        )
    if PAGE.match(start):
        return (
            "a web page (HTML), not the file: download it again from the file's own address (a page may ask "
            "to log in first)."
        )
    if XML.match(start):
        return "XML, such as a server's error message: look at its text, and download the file again."
    if JSON.match(start):
        return "JSON, such as a server's error message or a config.json: look at its text."
    for head, program in COMPRESSED.items():
        if start.startswith(head):
            return f"compressed by {program}: unpack it first."
    for head, name in OTHERS.items():
        if start.startswith(head):
            return f"{name}, no model."
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it first."
    if start[8:10] in (b'{"', b"{}") and struct.unpack("<Q", start[:8])[0] < size:
        return "safetensors: give the folder that has it as model.safetensors, beside its config.json."
    if not start.strip(b"\0"):
        return "zeros at its start: its download or copy was cut short; make it again."
    return None


def of_zip(names: list[str]) -> str:
    """What a zip is that torch.save did not write, in words that follow "it is"."""
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program: save the network's state_dict with torch.save instead."
    if any(name.endswith(".npy") for name in names):
        return "a zip of numpy arrays (.npz, or a data set of latents), no model."
    beginning = f", the first {names[0][:40]!r}" if names else ""
    return f"a zip of {len(names):,} files{beginning}, such as a data set; torch.save's has one data.pkl."


def text(start: bytes) -> str | None:
    """How a text begins, if the file is one."""
    try:
        words = start.decode()
    except UnicodeDecodeError as error:
        words = start[: error.start].decode() if error.start > len(start) - 4 else ""
    words = words.removeprefix("\ufeff")
    printable = words.strip() and all(letter.isprintable() or letter.isspace() for letter in words)
    return " ".join(words.split())[:60] if printable else None

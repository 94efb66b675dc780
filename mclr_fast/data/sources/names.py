"""What a file is by its name, and by its first bytes: an image, an archive, or another program's own."""

from __future__ import annotations

import re

# What is a photograph or a drawing in pixels; not all that PIL opens: it would take a .pdf or an .h5 too.
RASTER = frozenset(
    (
        *(
            ".png",
            ".apng",
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".jp2",
            ".j2k",
            ".j2c",
            ".jpx",
            ".webp",
            ".avif",
        ),
        *(".bmp", ".dib", ".gif", ".tif", ".tiff", ".tga", ".qoi", ".pcx", ".ras", ".sgi"),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
    )
)
LATENTS = ".npy"
ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".zip")
DATASET_JSON = "dataset.json"

# What systems and programs put among people's files, in lower case. Names that begin with a dot are too.
FOREIGN = frozenset(
    (
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "network trash folder"),
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "@synoresource", "@sharebin", "@__thumb"),
        *("#recycle", "#snapshot", "$recycle.bin", "recycler", "system volume information", "lost+found"),
        *("__pycache__", "temporary items"),
    )
)

BEGINNINGS = (  # of files that are taken for images or archives, and what those are
    (b"\x89PNG", "a PNG"),
    (b"\xff\xd8\xff", "a JPEG"),
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"\x93NUMPY", "a numpy array"),
    (b"version https://git-lfs", "a git-lfs pointer, not the file it stands for (git lfs pull)"),
    (b"%PDF", "a PDF"),
    (b"\x89HDF", "an HDF5 file"),
    (b"PAR1", "a Parquet file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"PK\3\4", "a zip archive"),
    (b"PK\5\6", "a zip archive"),
    (b"\0\0\x08\3", "an idx file of images (known by a name that ends in images-idx3-ubyte)"),
    (b"\0\0\x08\1", "an idx file of labels"),
)
IMAGE_KINDS = ("a PNG", "a JPEG", "a GIF", "a TIFF", "a WebP", "a HEIF or AVIF")
HTML = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype|html|head|\?xml)", re.IGNORECASE | re.DOTALL)


def is_image(name: str) -> bool:
    """By its suffix: pixels or latents."""
    suffix = name[name.rfind(".") :].lower()
    return suffix in RASTER or suffix == LATENTS


def is_latents(name: str) -> bool:
    """By its suffix: an array."""
    return name.lower().endswith(LATENTS)


def is_archive(name: str) -> bool:
    """By its suffix."""
    return name.lower().endswith(ARCHIVES)


def without_suffix(name: str) -> str:
    """Of an archive: the folder that it stands for."""
    suffix = max((s for s in ARCHIVES if name.lower().endswith(s)), key=len)
    return name[: -len(suffix)]


def is_foreign(part: str) -> bool:
    """Whether a file or folder of this name is hidden, or another program's own."""
    return part.startswith(".") or part.lower() in FOREIGN


def parts_of(name: str) -> list[str]:
    """A name's folders and its own, however it is written: ./a//b, a\\b and /a/b are a and b."""
    parts: list[str] = []
    for part in name.replace("\\", "/").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts


def kind_of(beginning: bytes) -> str | None:
    """What a file is that begins so, in words; None where that is not known."""
    if not beginning:
        return "empty"
    if not beginning.strip(b"\0"):
        return "nothing but zeros"
    if beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP":
        return "a WebP"
    if beginning[4:8] == b"ftyp" and beginning[8:12] in (b"heic", b"heix", b"mif1", b"avif", b"avis"):
        return "a HEIF or AVIF"
    if HTML.match(beginning):
        return "a page of HTML or XML, as a download that failed leaves"
    return next((kind for start, kind in BEGINNINGS if beginning.startswith(start)), None)


def shown(name: str) -> str:
    """A name that can be printed: bytes that are no UTF-8 replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def some(names: list[str], most: int = 3) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - most
    return ", ".join(shown(name) for name in names[:most]) + (f" and {more:,} more" if more > 0 else "")

"""Image files as they are, for training; as 8-bit RGB, for `prepare`, where their range is known."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
import PIL.Image
from PIL import ImageOps

from .sources.names import IMAGE_KINDS, is_latents, kind_of

ORIENTATION = 0x0112  # EXIF's tag
BITS, PHOTOMETRIC = 258, 262  # TIFF's
WHITE_IS_ZERO = 0
SIXTEEN_BITS = ("PNG", "PPM")  # formats whose mode "I" is 0..65535
FRAMES = ("GIF", "PNG", "TIFF", "WEBP")  # formats in which several images can lie


def decode(name: str, data: bytes) -> tuple[np.ndarray, str]:
    """A file's image as [C, H, W], and PIL's mode of it, or "npy"."""
    file = io.BytesIO(data)
    if is_latents(name):
        return np.load(file, allow_pickle=False), "npy"
    with PIL.Image.open(file) as opened:
        return np.atleast_3d(opened).transpose(2, 0, 1), opened.mode


def fault(error: Exception, data: bytes | None) -> str:
    """Why an image cannot be read, in words."""
    if not isinstance(error, PIL.UnidentifiedImageError):
        return str(error) if type(error) is ValueError else repr(error)
    kind = kind_of(data[:512]) if data is not None else None
    if kind in IMAGE_KINDS:
        return f"it is {kind}, damaged or of a kind that PIL does not read"
    return f"it is {kind}" if kind else "it is no image that PIL knows"


@dataclass
class Picture:
    """An image file's pixels, RGB.

    Attributes: remarks: what was done to them that may not be meant. "turned": the EXIF orientation that was
    not applied; "transparent": 1; "frames": 1, where this is the first of several; "deep": the brightest
    value of more than 8 bits, before it was scaled.
    """

    image: PIL.Image.Image
    remarks: dict[str, float] = field(default_factory=dict)


def read_picture(data: bytes, exif_rotation: bool = False) -> Picture:
    """8-bit RGB of a file, as EDM2's dataset tool has it (PIL's convert), but for what that would spoil.

    Grey of 9 to 16 bits is scaled from its whole range. Transparency is dropped: the colours below show.

    Args: exif_rotation: turned as EXIF says; EDM2's tool does not.
    Errors    ValueError for floats, and integers of more than 16 bits or with a sign: of no known range.
    """
    with PIL.Image.open(io.BytesIO(data)) as opened:
        opened.load()
        remarks: dict[str, float] = {}
        if opened.mode == "F" or (opened.mode == "I" and opened.format not in SIXTEEN_BITS):
            kind = "floating point" if opened.mode == "F" else "integers of 32 bits or with a sign"
            raise ValueError(f"its pixels are {kind}, whose range is not known: scale them to 8 or 16 bits")
        if opened.mode == "I" or opened.mode.startswith("I;16"):
            image, remarks["deep"] = _scaled(opened)
        else:
            if _is_transparent(opened):
                remarks["transparent"] = 1
            image = opened.convert("RGB")
        orientation = opened.getexif().get(ORIENTATION, 1)
        if orientation in range(2, 9):
            if exif_rotation:
                image = _turned(image, orientation)
            else:
                remarks["turned"] = orientation
        if opened.format in FRAMES and getattr(opened, "is_animated", False):
            remarks["frames"] = 1
    return Picture(image, remarks)


def _scaled(opened: PIL.Image.Image) -> tuple[PIL.Image.Image, float]:
    """Grey of more than 8 bits -> RGB, and the brightest value that there was: 65535 is 255, so 257 is 1."""
    tags = getattr(opened, "tag_v2", {})
    bits = tags.get(BITS, (16,))[0]
    values = np.asarray(opened).astype(np.int64)
    full = 2**bits - 1
    brightest = int(values.max())
    if brightest > full or values.min() < 0:
        raise ValueError(f"its values reach {brightest}, not at most {full}: scale them to 8 or 16 bits")
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        values = full - values
    grey = (values * 255 + full // 2) // full
    return PIL.Image.fromarray(grey.astype(np.uint8)).convert("RGB"), brightest


def _is_transparent(opened: PIL.Image.Image) -> bool:
    """Whether anything shows through."""
    if opened.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        return opened.getchannel(opened.getbands()[-1]).getextrema()[0] < 255
    return "transparency" in opened.info


def _turned(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)

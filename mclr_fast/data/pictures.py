"""The images that a data set is made of, read, cropped and, where that may not be meant, remarked on."""

from __future__ import annotations

from typing import ClassVar

import PIL.Image
from PIL.Image import Transpose

from mclr_fast.config import PrepareConfig

from .crop import center_crop_dhariwal, pad_with_black
from .pixels import Picture, fault, read_picture
from .sources import Source
from .sources.names import shown

LARGE_FACTOR = 2  # from which on an enlarged image is worth a word


class Images:
    """The images that a data set is made of, in the order of their names; mirrored, all of them once more."""

    def __init__(self, config: PrepareConfig, source: Source):
        self.source, self.config = source, config
        self.names = source.names
        self.num_images = len(self.names) * (2 if config.mirror else 1)

    def label(self, index: int) -> int:
        """The class of the image at this place."""
        return int(self.source.classes.labels[index % len(self.names)])

    def picture(self, index: int) -> Picture | ValueError:
        """RGB or grey, of the wanted size; an error for a damaged one that is to be left out."""
        name = self.names[index % len(self.names)]
        data = None
        try:
            data = self.source.read(name)
            picture = read_picture(data, self.config.exif_rotation)
            self._bring_to_size(picture)
            if self.config.grey:
                picture.image = picture.image.convert("L")
        except Exception as error:  # whatever a damaged file makes a decoder raise
            reason = f"{name!r} cannot be read ({fault(error, data)})"
            if self.config.skip_damaged and not _is_machines(error):
                return ValueError(reason)
            mend = "" if _is_machines(error) else ": mend it, or leave such images out with --skip-damaged"
            raise ValueError(f"{self.source.path}: {reason}{mend}") from error
        if index >= len(self.names):
            picture.image = picture.image.transpose(Transpose.FLIP_LEFT_RIGHT)
        return picture

    def _bring_to_size(self, picture: Picture) -> None:
        resolution = self.config.resolution
        if self.config.pad:
            picture.image = pad_with_black(picture.image, resolution)
            return
        factor = resolution / min(picture.image.size)
        if factor >= LARGE_FACTOR:
            picture.remarks["enlarged"] = factor
        picture.image = center_crop_dhariwal(picture.image, resolution)


def _is_machines(error: Exception) -> bool:
    """Whether the machine failed, and not the image: a network drive, rights, memory."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)


class Remarks:
    """What was done to images that may not be meant: how often, and one of them."""

    WORDS: ClassVar = {
        "turned": "with an EXIF rotation that is not applied, as in EDM2's tool: --exif-rotation applies it",
        "transparent": "with transparency, which is dropped: the colours below show",
        "frames": "of several frames or pages, of which the first is taken",
        "deep": "in grey of more than 8 bits, scaled from their whole range: {most:,.0f} is the brightest",
        "enlarged": "of at most half the resolution, enlarged {most:.1f} times at most",
    }

    def __init__(self) -> None:
        self.left_out: list[str] = []
        self._found: dict[str, list] = {}  # how many, the largest number, its image

    def add(self, name: str, remarks: dict[str, float]) -> None:
        """Of one image."""
        for kind, number in remarks.items():
            found = self._found.setdefault(kind, [0, number, shown(name)])
            found[0] += 1
            if number > found[1]:
                found[1:] = [number, shown(name)]

    def lines(self) -> list[str]:
        """In words; of the images of this go."""
        return [
            f"note: {count:,} image{'s'[: count > 1]} {self.WORDS[kind].format(most=most)} (such as {name})."
            for kind, (count, most, name) in self._found.items()
        ]


def usable(images: Images, indices: range, pictures: list, remarks: Remarks) -> list[PIL.Image.Image | None]:
    """The images of a chunk, None for one that is left out; what there is to say of them is noted."""
    found = []
    for index, picture in zip(indices, pictures, strict=True):
        if isinstance(picture, ValueError):
            remarks.left_out.append(str(picture))
            found.append(None)
            continue
        if index < len(images.names):  # its mirror image says the same
            remarks.add(images.names[index], picture.remarks)
        found.append(picture.image)
    return found

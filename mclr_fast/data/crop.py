"""Images brought to squares of one size: cropped, as EDM2 and ADM prepare ImageNet, or padded."""

from __future__ import annotations

import PIL.Image
from PIL.Image import Resampling


def center_crop_dhariwal(image: PIL.Image.Image, resolution: int) -> PIL.Image.Image:
    """The middle of an image, resolution x resolution.

    Halved by a box filter while the short side is at least twice the resolution, then the short side
    brought to it bicubically, then cropped.
    Source    EDM2's dataset tool, after Dhariwal and Nichol (arXiv 2105.05233), their ImageNet data.
    """
    while min(image.size) >= 2 * resolution:
        image = image.resize((image.width // 2, image.height // 2), Resampling.BOX)
    scale = resolution / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image = image.resize(size, Resampling.BICUBIC)
    left, top = ((length - resolution) // 2 for length in image.size)
    return image.crop((left, top, left + resolution, top + resolution))


def pad_with_black(image: PIL.Image.Image, resolution: int) -> PIL.Image.Image:
    """The image in the middle of resolution x resolution, its pixels as they are.

    Errors    ValueError for one that is larger.
    """
    width, height = image.size
    if max(width, height) > resolution:
        raise ValueError(
            f"it is {width}x{height}, and --pad makes images of {resolution} pixels of smaller ones"
        )
    padded = PIL.Image.new(image.mode, (resolution, resolution))
    padded.paste(image, ((resolution - width) // 2, (resolution - height) // 2))
    return padded

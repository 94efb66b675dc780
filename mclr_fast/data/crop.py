"""ImageNet as EDM2 and ADM prepare it: square images of one size."""

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

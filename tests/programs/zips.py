"""A data set of an array of images, written as the package writes samples."""

from mclr_fast.data.image_files import ZipWriter


def write_zip(path, images, labels):
    """uint8 [n,C,H,W] as PNG, or float32 [n,8,h,w] as .npy, and their labels."""
    with ZipWriter(path) as archive:
        archive.add(images)
        archive.finish(labels)

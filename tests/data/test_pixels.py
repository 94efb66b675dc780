"""Pixels of every kind to 8-bit RGB: scaled where their range is known, refused by name where it is not."""

import io

import numpy as np
import PIL.Image
import pytest
from PIL import TiffImagePlugin

from mclr_fast.data.pixels import BITS, PHOTOMETRIC, read_picture

RAMP = np.array([[0, 1, 256, 257], [32767, 32768, 65278, 65535]], np.uint16)
RAMP_8 = np.array([[0, 0, 1, 1], [127, 128, 254, 255]], np.uint8)  # RAMP / 257, rounded


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data, **options):
    return np.asarray(read_picture(data, **options).image)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.robust("pixels")
def test_grey_of_16_bits_is_scaled_by_257(kind):
    """0 to 65535 becomes 0 to 255, and it is noted how bright the brightest was."""
    data = encoded(PIL.Image.fromarray(RAMP), kind)
    picture = read_picture(data)
    assert np.array_equal(np.asarray(picture.image), np.repeat(RAMP_8[:, :, None], 3, axis=2))
    assert picture.remarks == {"deep": 65535}


@pytest.mark.robust("pixels")
def test_a_plain_pgm_of_another_maximum_is_scaled_from_it():
    """Its own maximum becomes 255."""
    data = b"P5 2 1 1023 " + np.array([512, 1023], ">u2").tobytes()
    assert pixels(data)[0, :, 0].tolist() == [128, 255]


@pytest.mark.parametrize(
    ("bits", "full", "is_white_zero"), [(12, 4095, False), (16, 65535, False), (16, 65535, True)]
)
@pytest.mark.robust("pixels")
def test_a_tiff_says_how_many_bits_it_has_and_which_way_they_run(bits, full, is_white_zero):
    """12 and 16 bits are scaled from their whole range, and white-is-zero is turned."""
    values = np.array([[0, full // 3, full]], np.uint16)
    data = bytearray(encoded(PIL.Image.fromarray(values), "TIFF"))
    for tag, value in ((BITS, bits), (PHOTOMETRIC, 0 if is_white_zero else 1)):
        at = data.index(tag.to_bytes(2, "little") + b"\3\0\1\0\0\0")
        data[at + 8 : at + 10] = value.to_bytes(2, "little")
    if bits == 12:  # two values in three bytes
        packed = bytearray(5)
        packed[:] = bytes([0, full // 3 >> 8, full // 3 & 255, full >> 4, (full & 15) << 4])
        start = bytes(data).index(values.tobytes())
        data[start : start + 5] = packed
    expected = [0, 85, 255]
    assert pixels(bytes(data))[0, :, 0].tolist() == [255 - v if is_white_zero else v for v in expected]


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4), "floating point"),
        (np.linspace(0, 255, 8, dtype=np.float32).reshape(2, 4), "floating point"),
        (np.arange(8, dtype=np.int32).reshape(2, 4) * 1000, "integers of 32 bits or with a sign"),
    ],
)
@pytest.mark.robust("pixels")
def test_what_has_no_known_range_is_refused_by_name(array, what):
    """Floats and integers of 32 bits are an error that says to scale them."""
    with pytest.raises(ValueError, match=f"its pixels are {what}.*, whose range is not known: scale them"):
        read_picture(encoded(PIL.Image.fromarray(array), "TIFF"))


@pytest.mark.robust("pixels")
def test_signed_integers_are_refused():
    """They are an error too: their range is not known."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[339] = 2  # SampleFormat: signed
    data = encoded(PIL.Image.fromarray(RAMP), "TIFF", tiffinfo=tags)
    with pytest.raises(ValueError, match="with a sign"):
        read_picture(data)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
@pytest.mark.robust("pixels")
def test_other_pixels_are_as_edm2s_tool_has_them(mode):
    """They become RGB as PIL converts them, without a remark."""
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).convert(mode)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    picture = read_picture(data)
    assert np.array_equal(np.asarray(picture.image), PIL.Image.open(io.BytesIO(data)).convert("RGB"))
    assert picture.remarks == {}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.robust("pixels")
def test_transparency_is_dropped_and_that_is_said(mode):
    """The colours below show, and it is noted where anything showed through."""
    image = PIL.Image.new("RGBA", (2, 2), (200, 200, 200, 255))
    assert read_picture(encoded(image, "PNG")).remarks == {}  # nothing shows through
    image.putpixel((0, 0), (90, 90, 90, 0))
    image = image.convert("RGB").quantize(2) if mode == "P" else image.convert(mode)
    options = {"transparency": image.getpixel((0, 0))} if mode == "P" else {}
    picture = read_picture(encoded(image, "PNG", **options))
    assert picture.remarks == {"transparent": 1}
    assert np.asarray(picture.image)[:, :, 0].tolist() == [[90, 200], [200, 200]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
@pytest.mark.robust("pixels")
def test_the_first_of_several_frames_is_taken(kind):
    """That there are more is noted."""
    first, second = (PIL.Image.new("RGB", (4, 4), (v, v, v)) for v in (10, 250))
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read_picture(encoded(first, kind, save_all=True, append_images=[second], **options))
    assert picture.remarks == {"frames": 1} and np.asarray(picture.image)[0, 0, 0] == 10


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.robust("pixels")
def test_exif_rotation_where_it_is_asked_for(orientation, kind):
    """--exif-rotation turns the image as viewers do; without it that it is turned is noted."""
    upright = np.zeros((16, 8, 3), np.uint8)
    upright[:8, :4] = 255  # the upper left corner
    stored = {  # the inverse of what a viewer does
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PIL.Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif)
    turned, plain = read_picture(data, exif_rotation=True), read_picture(data)
    assert np.abs(np.asarray(turned.image).astype(int) - upright).max() < 30 and turned.remarks == {}
    assert np.abs(np.asarray(plain.image).astype(int) - stored).max() < 30
    assert plain.remarks == ({"turned": orientation} if orientation > 1 else {})

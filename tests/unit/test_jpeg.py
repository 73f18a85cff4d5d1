"""Image files become the RGB that Pillow makes of them, or one line with their name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from distillbench.data.jpeg import decode
from distillbench.errors import UserError

DRAWS = np.random.default_rng(0)
SMALL = Image.fromarray(DRAWS.integers(0, 256, (9, 12, 3), dtype=np.uint8))
PICTURE = SMALL.resize((200, 150), Image.Resampling.BICUBIC)  # as smooth as photographs are


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def cmyk(black):
    """Of four channels that are all used."""
    pixels = np.array(PICTURE.convert("CMYK"))
    pixels[..., 3] = black
    return encoded(Image.fromarray(pixels, "CMYK"))


def with_transform(content, number):
    """With another colour transform in Adobe's marker: 0 for CMYK, 2 for YCCK."""
    place = content.index(b"Adobe") + 11
    return content[:place] + bytes([number]) + content[place + 1 :]


def without_adobe(content):
    start = content.index(b"\xff\xee")
    return content[:start] + content[start + 2 + int.from_bytes(content[start + 2 : start + 4], "big") :]


def png_of_16_bits(pixels, colour):
    """pixels: uint16 [H, W, channels]; colour: PNG's number of the kind."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


TRANSPARENT = PICTURE.convert("RGBA")
TRANSPARENT.putalpha(Image.fromarray(DRAWS.integers(0, 256, (150, 200), dtype=np.uint8)))
SIXTEEN = DRAWS.integers(0, 2**16, (20, 30, 3), dtype=np.uint16)
BLACK = np.linspace(0, 255, 200).astype(np.uint8)
FILES = {
    "JPEG": encoded(PICTURE),
    "all of the colour": encoded(PICTURE, quality=95, subsampling=0),
    "half of the colour": encoded(PICTURE, subsampling=1),
    "odd sizes": encoded(PICTURE.crop((0, 0, 123, 77))),
    "progressive": encoded(PICTURE, progressive=True),
    "restart markers": encoded(PICTURE, restart_marker_blocks=3),
    "RGB within": encoded(PICTURE, keep_rgb=True),
    "turned by EXIF": encoded(PICTURE, exif=exif(6)),
    "grey": encoded(PICTURE.convert("L")),
    "CMYK with Adobe's marker": cmyk(BLACK),
    "CMYK without": without_adobe(cmyk(BLACK)),
    "YCCK": with_transform(cmyk(BLACK), 2),
    "bytes behind": encoded(PICTURE) + b"behind the picture" * 100,
    "PNG": encoded(PICTURE, "PNG"),
    "transparent PNG": encoded(TRANSPARENT, "PNG"),
    "palette with transparency": encoded(PICTURE.quantize(8), "PNG", transparency=b"\0\x80"),
    "grey PNG": encoded(PICTURE.convert("L"), "PNG"),
    "PNG of 16 bits": png_of_16_bits(SIXTEEN, colour=2),
    "GIF": encoded(PICTURE, "GIF"),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_file_is_decoded_to_the_rgb_that_pillow_makes_of_it(content):
    found, expected = decode(content, "a.JPEG"), np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert found.is_contiguous() and np.array_equal(found.numpy(), expected)


def test_the_files_of_four_channels_are_what_they_are_called():
    names = ["CMYK with Adobe's marker", "CMYK without", "YCCK"]
    assert {Image.open(io.BytesIO(FILES[name])).mode for name in names} == {"CMYK"}
    assert [b"Adobe" in FILES[name] for name in names] == [True, False, True]
    assert (decode(FILES[names[0]], "")[:, -1] < 9).all()  # black
    assert not np.array_equal(decode(FILES["YCCK"], ""), decode(FILES[names[0]], ""))


@pytest.mark.parametrize("name", ["JPEG", "progressive", "grey", "restart markers", "CMYK with Adobe's marker", "PNG"])
def test_a_file_that_is_cut_is_named(name):
    content = FILES[name]
    for length in (0, 1, 2, 100, len(content) // 4, len(content) // 2, len(content) - 30):
        with pytest.raises(UserError, match=r"^train/n01/a.JPEG: not a whole image \(.+\); get the data set again$"):
            decode(content[:length], "train/n01/a.JPEG")


@pytest.mark.parametrize("name", ["JPEG", "progressive", "grey", "restart markers", "CMYK with Adobe's marker"])
def test_a_jpeg_whose_end_is_zeros_is_refused(name):
    """What a full disk or a sparse copy leaves; Pillow makes pictures of some."""
    for zeros in (2, 30, 500, len(FILES[name]) // 2):
        with pytest.raises(UserError, match=r"a[.]JPEG: not a whole image \(Image is incomplete or truncated\)"):
            decode(FILES[name][:-zeros] + bytes(zeros), "a.JPEG")


@pytest.mark.parametrize("content", [b"<html>", b"\xff\xd8\xff\xe0" + b"nothing" * 99, encoded(PICTURE, "PNG")[:60]])
def test_what_is_no_picture_is_one_line(content):
    with pytest.raises(UserError, match=r"^[^\n]*a.JPEG: not a whole image [^\n]*$"):
        decode(content, "a.JPEG")


def test_grey_of_16_bits_is_refused_as_pillow_would_make_it_white():
    with pytest.raises(UserError, match=r"a[.]JPEG: not a whole image .*I;16"):
        decode(png_of_16_bits(SIXTEEN[..., :1], colour=0), "a.JPEG")

"""Pictures out of the files of data sets: JPEG, and what else is found under that name."""

import io
import re

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from distillbench.errors import UserError

JPEG = b"\xff\xd8"  # how it begins


def decode(content, where):
    """uint8 tensor [H, W, 3], RGB, of the content of an image file; `where` names the file in errors.

    JPEGs, also grey ones and CMYK, go through torchvision's decoder, everything else through Pillow: the same bytes as
    Pillow's alone, where both hold the same libjpeg. As in the published pipelines EXIF's orientation is ignored and
    transparency is dropped. Raises UserError for a file that is cut, damaged or no picture of 8 bits a channel; Pillow
    is not asked about JPEGs, as it makes pictures of some whose end is zeros. A file with wrong bytes within may yet
    decode, to wrong pixels: digests tell, decoders do not.
    """
    try:
        return _jpeg(content) if content[:2] == JPEG else _other(content)
    except Exception as error:  # a damaged file raises half a dozen types
        raise UserError(f"{where}: not a whole image ({_reason(error)}); get the data set again") from None


def _jpeg(content):
    content = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return decode_jpeg(content, mode=ImageReadMode.RGB).permute(1, 2, 0)


def _other(content):
    with Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"its pixels are of mode {image.mode}, which Pillow clips to 8 bits")
        return torch.from_numpy(np.array(image.convert("RGB")))


def _reason(error):
    if isinstance(error, Image.UnidentifiedImageError):  # which names an object in memory
        return "no format that Pillow knows"
    return re.sub(r"^.*\.cpp:\d+, ", "", str(error))  # the place in torchvision's source

"""Pictures out of the files of data sets: JPEG, and what else is found under that name."""

import io

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from distillbench.errors import UserError


def decode(content, where):
    """uint8 tensor [H, W, 3], RGB, of the content of an image file; `where` names the file in errors.

    JPEGs, also grey ones and CMYK, go through torchvision's decoder, everything else (and what that does not take)
    through Pillow. Both give the same bytes where they hold the same libjpeg. As in the published pipelines EXIF's
    orientation is ignored and transparency is dropped. Raises UserError for a file that is cut, damaged or no picture
    of 8 bits a channel. A file whose bytes are wrong may yet decode, to wrong pixels: digests tell, decoders do not.
    """
    try:
        pixels = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
        return pixels.permute(1, 2, 0)
    except (RuntimeError, ValueError):  # no JPEG, empty, cut: Pillow decides
        return torch.from_numpy(_with_pillow(content, where))


def _with_pillow(content, where):
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"its pixels are of mode {image.mode}, which Pillow clips to 8 bits")
            return np.array(image.convert("RGB"))
    except Exception as error:  # a damaged file raises half a dozen types
        raise UserError(f"{where}: not a whole image ({_reason(error)}); get the data set again") from None


def _reason(error):
    return "no format that Pillow knows" if isinstance(error, Image.UnidentifiedImageError) else error

"""Augmentations of images: what is drawn for every view of every image, and how it is applied.

Those of resident images are gathers only. What is streamed is cut out of each picture, as it was decoded, by itself.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from distillbench.errors import UserError, one_of


class CropFlip:
    """A random crop of the image with zeros around it, and a horizontal flip, as the published CIFAR recipes have it.

    crop_padding: zeros on each side, in pixels; flip: whether half of the views are mirrored.
    """

    def __init__(self, crop_padding, flip):
        self.padding, self.flip = crop_padding, flip

    def draw(self, generator, views, num_images):
        """{name: tensor [views, num_images]}: top and left of the crop (int64), whether it is flipped (bool)."""
        positions, shape = 2 * self.padding + 1, (views, num_images)
        rows, columns = (torch.randint(positions, shape, generator=generator) for _ in range(2))
        flips = torch.rand(shape, generator=generator) < (0.5 if self.flip else 0.0)
        return {"row": rows, "column": columns, "flip": flips}

    def numbers(self, draws):
        """The number of each drawn view among the `view_count` views of an image, int64, of the shape of the draws."""
        positions = 2 * self.padding + 1
        return (draws["flip"] * positions + draws["row"]) * positions + draws["column"]

    def draws_of(self, numbers):
        """The draws that `numbers` gives these numbers."""
        positions = 2 * self.padding + 1
        places = numbers % positions**2
        return {"row": places // positions, "column": places % positions, "flip": numbers >= positions**2}

    def prepared(self, images):
        """The images [N, H, W, 3] of a split as `apply` reads them: with their zeros."""
        return F.pad(images, (0, 0, *4 * (self.padding,)))

    def apply(self, images, index, draws):
        """A view [n, H, W, 3] of each image of `index` [n]; images: prepared; draws: {name: tensor [n]}."""
        steps = torch.arange(images.shape[1] - 2 * self.padding, device=index.device)
        across = torch.where(draws["flip"][:, None], steps.flip(0), steps)
        rows, columns = draws["row"][:, None] + steps, draws["column"][:, None] + across
        return images[index[:, None, None], rows[:, :, None], columns[:, None, :]]


class RotationFlip:
    """A random rotation around the centre, black outside the image, and then a horizontal flip, as the published recipe
    for Tiny-ImageNet has it.

    Pixels come from where Pillow's `Image.rotate` takes them, by the same fixed-point numbers: the same bytes on every
    device. degrees: the largest angle, either way; flip: whether half of the views are mirrored.
    """

    def __init__(self, degrees, interpolation, flip):
        _require_interpolation(interpolation, "nearest")
        self.degrees, self.flip = degrees, flip

    def draw(self, generator, views, num_images):
        """{name: tensor [views, num_images]}: cosine and sine of the angle (float64), whether it is flipped (bool)."""
        shape = (views, num_images)
        angles = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
        angles = torch.deg2rad(self.degrees * angles)
        flips = torch.rand(shape, generator=generator) < (0.5 if self.flip else 0.0)
        return {"cosine": angles.cos(), "sine": angles.sin(), "flip": flips}

    def prepared(self, images):
        """As they are: a mapped file stays one."""
        return images

    def apply(self, images, index, draws):
        """A view [n, H, H, 3] of each image of `index` [n]; images: prepared; draws: {name: tensor [n]}."""
        size = images.shape[1]
        cosine, sine = (draws[name][:, None, None] for name in ("cosine", "sine"))
        steps = torch.arange(size, device=index.device)
        across = torch.where(draws["flip"][:, None], steps.flip(0), steps)[:, None, :]
        down, offset = steps[:, None], 0.5 - size / 2  # the centre of the first pixel, from that of the image
        step, skew = _fixed(cosine), _fixed(sine)
        columns = (_fixed((cosine - sine) * offset + size / 2) + across * step - down * skew) >> 16
        rows = (_fixed((cosine + sine) * offset + size / 2) + across * skew + down * step) >> 16
        inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
        pixels = images[index[:, None, None], rows.clamp(0, size - 1), columns.clamp(0, size - 1)]
        return pixels * inside[..., None]


def _fixed(numbers):
    """In units of 2**-16, int64."""
    return (numbers * 65536 + 0.5).floor().long()


class ResizedCropFlip:
    """A random part of a picture of any size, brought to one size, and a horizontal flip, as the published recipe for
    ImageNet has it: torchvision's RandomResizedCrop and RandomHorizontalFlip, draw for draw.

    scale: of the part's area, as a share of the picture's; ratio: of its width to its height; flip: whether half of the
    views are mirrored. Parts are resized as uint8, with antialiasing, by torch's kernel: of 200 photographs 97.5 % of
    the numbers are Pillow's, 2.5 % one grey level beside it, 3 in 100 million two.
    """

    ATTEMPTS = 10  # to find a part within the picture

    def __init__(self, scale, ratio, interpolation, flip):
        _require_interpolation(interpolation, "bilinear")
        self.scale, self.ratio, self.flip = scale, ratio, flip
        self.logs = torch.log(torch.tensor(ratio)).tolist()

    def draw(self, generator, views, num_images):
        """{}: nothing ahead, as each view has a generator of its own."""
        return {}

    def prepared(self, images):
        return images

    def box(self, height, width, generator):
        """(top, left, height, width) of a part of a picture of this size."""
        for _ in range(self.ATTEMPTS):
            area = height * width * torch.empty(1).uniform_(*self.scale, generator=generator).item()
            ratio = torch.exp(torch.empty(1).uniform_(*self.logs, generator=generator)).item()
            wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < high <= height:
                top = torch.randint(height - high + 1, (1,), generator=generator).item()
                return top, torch.randint(width - wide + 1, (1,), generator=generator).item(), high, wide
        narrowest, widest = self.ratio  # the largest part in the middle whose ratio is allowed
        high, wide = min(height, round(width / narrowest)), min(width, round(height * widest))
        return (height - high) // 2, (width - wide) // 2, high, wide

    def view(self, pixels, size, generator):
        """A view uint8 [size, size, 3] of a picture uint8 [H, W, 3]: a function of what the generator draws."""
        top, left, high, wide = self.box(*pixels.shape[:2], generator)
        flipped = self.flip and torch.rand(1, generator=generator).item() < 0.5
        part = pixels[None, top : top + high, left : left + wide].permute(0, 3, 1, 2)
        part = F.interpolate(part, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        return part.flip(1) if flipped else part.contiguous()


def centre_view(pixels, size):
    """The view uint8 [size, size, 3] of a picture uint8 [H, W, 3] that it is evaluated in, as published for ImageNet.

    The shorter side is brought to 256 / 224 of `size` by Pillow, as torchvision's Resize has it, the middle is cut out.
    """
    height, width = pixels.shape[:2]
    short, shorter = round(size * 256 / 224), min(height, width)
    height, width = (short * side // shorter for side in (height, width))  # rounded down, as there
    image = Image.fromarray(pixels.numpy()).resize((width, height), Image.Resampling.BILINEAR)
    top, left = (round((side - size) / 2) for side in (height, width))
    return torch.from_numpy(np.array(image.crop((left, top, left + size, top + size))))


def _require_interpolation(name, known):
    if name != known:
        raise UserError(f"views.augmentation.interpolation: {one_of(name, [known], 'interpolation')}")


class Mixup:
    """Mixtures of each image with the one before it in the batch, whose order is random (Zhang et al., ICLR 2018).

    alpha: the shares of two images are distributed as Beta(alpha, alpha). The larger is that of the image itself: both
    orders of a pair are the same mixture.
    """

    def __init__(self, alpha):
        self.alpha = alpha

    def draw(self, generator, num_images):
        """The share of an image, float64 [num_images]. A batch has that of its first one."""
        seed = torch.randint(2**63 - 1, (), generator=generator).item()
        shares = np.random.default_rng(seed).beta(self.alpha, self.alpha, num_images)
        return torch.from_numpy(np.maximum(shares, 1 - shares))

    def apply(self, view, share):
        """Mixtures of a view [N, 3, H, W]; share: 0-d."""
        return share * view + (1 - share) * self.partner(view)

    def partner(self, tensor):
        """Of a tensor [N, ...] of the batch's images, that of those which are mixed in."""
        return torch.cat([tensor[-1:], tensor[:-1]])


KINDS = {"crop_flip": CropFlip, "rotation_flip": RotationFlip, "resized_crop_flip": ResizedCropFlip}


def augmentation_of(declared):
    """The augmentation of a specification's `views.augmentation`. Raises UserError for a kind that there is none of."""
    options = {name: value for name, value in declared.items() if name != "kind"}
    kind = declared.get("kind", "crop_flip")
    if kind not in KINDS:
        raise UserError(f"views.augmentation.kind: {one_of(kind, KINDS, 'augmentation')}")
    return KINDS[kind](**options)

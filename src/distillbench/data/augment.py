"""Augmentations of images: what is drawn for every view of every image, and how it is applied. Gathers only."""

import numpy as np
import torch
import torch.nn.functional as F

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
        if interpolation != "nearest":
            raise UserError(f"views.augmentation.interpolation: {one_of(interpolation, ['nearest'], 'interpolation')}")
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


KINDS = {"crop_flip": CropFlip, "rotation_flip": RotationFlip}


def augmentation_of(declared):
    """The augmentation of a specification's `views.augmentation`. Raises UserError for a kind that there is none of."""
    options = {name: value for name, value in declared.items() if name != "kind"}
    kind = declared.get("kind", "crop_flip")
    if kind not in KINDS:
        raise UserError(f"views.augmentation.kind: {one_of(kind, KINDS, 'augmentation')}")
    return KINDS[kind](**options)

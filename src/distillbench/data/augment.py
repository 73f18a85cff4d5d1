"""Augmentations of images: what is drawn for every view of every image, and how it is applied. Gathers only."""

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


KINDS = {"crop_flip": CropFlip}


def augmentation_of(declared):
    """The augmentation of a specification's `views.augmentation`. Raises UserError for a kind that there is none of."""
    options = {name: value for name, value in declared.items() if name != "kind"}
    kind = declared.get("kind", "crop_flip")
    if kind not in KINDS:
        raise UserError(f"views.augmentation.kind: {one_of(kind, KINDS, 'augmentation')}")
    return KINDS[kind](**options)

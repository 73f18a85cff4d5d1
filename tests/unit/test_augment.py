"""What happens to images: what the published transforms do, exactly where nothing is drawn, else in distribution."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from standins import FIXTURES, specification_of

from distillbench.config import components
from distillbench.data.augment import Mixup, RotationFlip, augmentation_of, centre_view
from distillbench.engine.feed import Feed, Split, generated_feed
from distillbench.engine.replay import Recording
from distillbench.engine.streams import generator
from distillbench.errors import UserError
from distillbench.tasks.classification.batches import Batch, Labels

TINY, IMAGENET = (components.datasets()[name]["augmentation"] for name in ("tiny_imagenet", "imagenet"))


def formula(height, width):
    """The image of the reference vectors."""
    y, x, channel = np.ogrid[:height, :width, :3]
    return ((x * 7 + y * 13 + channel * 29 + x * y // 7) % 256).astype(np.uint8)


def split_of(name, images, labels=None):
    keys = {"DATASET.TYPE": name, "DISTILLER.STUDENT": sorted(components.networks(name))[0]}
    labels = np.zeros(len(images), np.int64) if labels is None else labels
    return Split.put(images, labels, specification_of(**keys), "cpu")


def test_test_images_are_those_of_the_published_transform():
    expected = torch.from_numpy(np.load(FIXTURES / "cifar100_test_transform.npy"))
    ((found, _),) = split_of("cifar100", formula(32, 32)[None]).batches()
    assert torch.equal(found[0], expected)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny_imagenet"])
def test_test_images_are_scaled_and_normalised_as_torchvision_does_it(name):
    from torchvision.transforms import Compose, Normalize, ToTensor

    declared = components.datasets()[name]
    image = formula(declared["image_size"], declared["image_size"])
    expected = Compose([ToTensor(), Normalize(declared["mean"], declared["std"])])(image)
    ((found, _),) = split_of(name, image[None]).batches()
    assert torch.equal(found[0], expected)


# Rotations


def test_a_rotation_takes_the_pixels_that_pillow_takes():
    draws, augmentation = np.random.default_rng(0), RotationFlip(20, "nearest", True)
    images = draws.integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    angles = np.concatenate([[0.0, 20.0, -20.0, 1e-9, 45.0], draws.uniform(-20, 20, 395)])
    index, flips = torch.from_numpy(draws.integers(0, 4, 400)), torch.from_numpy(draws.random(400) < 0.5)
    radians = torch.deg2rad(torch.from_numpy(angles))
    drawn = {"cosine": radians.cos(), "sine": radians.sin(), "flip": flips}
    found = augmentation.apply(augmentation.prepared(torch.from_numpy(images)), index, drawn)
    for view, number, angle, flip in zip(found, index, angles, flips, strict=True):
        expected = np.asarray(Image.fromarray(images[number]).rotate(angle))
        assert np.array_equal(view, expected[:, ::-1] if flip else expected), angle
    assert found.dtype == torch.uint8 and (found[1, 0, 0] == 0).all()  # a corner is black


def test_angles_are_uniform_and_half_of_the_views_are_flipped():
    draws = augmentation_of(TINY).draw(torch.Generator().manual_seed(0), 2, 20_000)
    angles = torch.rad2deg(torch.atan2(draws["sine"], draws["cosine"])).flatten().sort().values
    expected = torch.linspace(-20, 20, len(angles), dtype=torch.float64)
    assert (angles - expected).abs().max() < 0.4 and angles.abs().max() <= 20 + 1e-9
    assert abs(draws["flip"].double().mean() - 0.5) < 0.01
    assert not augmentation_of({**TINY, "flip": False}).draw(torch.Generator(), 1, 100)["flip"].any()
    assert all(tensor.shape == (2, 20_000) for tensor in draws.values())
    both = (angles for angles in draws["sine"])
    assert not torch.equal(*both)


def feed(seed=0):
    images = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    split = split_of("tiny_imagenet", images, np.arange(12))
    return Feed(split, {"count": 2, "augmentation": TINY}, seed)


def test_rotated_batches_are_functions_of_seed_and_epoch():
    one, other = feed(), feed()
    other.begin(3)
    other.advance(12)
    for epoch in (1, 2, 1):
        one.begin(epoch)
        other.begin(epoch, 4)
        one.advance(4)
        ours, theirs = one.batch(8), other.batch(8)
        assert all(map(torch.equal, ours.views, theirs.views)) and torch.equal(ours.target, theirs.target)
    another = feed(seed=1)
    assert not torch.equal(another.batch(12).views[0], feed().batch(12).views[0])


def test_a_recorded_batch_of_rotations_is_replayed():
    """What a CUDA graph does: nothing of an epoch is left in the operations."""
    recorded, fresh = feed(), feed()
    with Recording() as recording:
        batch = recorded.batch(4)
    for epoch, position in ((1, 4), (2, 0), (2, 8)):
        recorded.begin(epoch, position)
        fresh.begin(epoch, position)
        recording.replay()
        assert all(map(torch.equal, batch.views, fresh.batch(4).views))


def test_another_interpolation_is_refused():
    with pytest.raises(UserError, match=r"views.augmentation.interpolation: unknown interpolation 'bilinear'"):
        augmentation_of({**TINY, "interpolation": "bilinear"})


def test_images_that_are_rotated_stay_mapped():
    images = torch.zeros((2, 64, 64, 3), dtype=torch.uint8)
    assert RotationFlip(20, "nearest", True).prepared(images) is images


# Parts of pictures of any size


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def smooth(draws, height, width):
    """A picture [height, width, 3] with edges and gradients."""
    small = draws.integers(0, 256, (max(2, height // 9), max(2, width // 9), 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("height, width", [(375, 500), (500, 333), (64, 64), (100, 900), (900, 100), (1, 7), (3, 2)])
def test_parts_are_those_that_torchvision_draws(height, width):
    """Of the same draws, also where none of ten attempts is within the picture."""
    from torchvision.transforms import RandomResizedCrop

    augmentation, image = augmentation_of(IMAGENET), torch.zeros((3, height, width))
    for seed in range(300):
        torch.manual_seed(seed)
        expected = RandomResizedCrop.get_params(image, IMAGENET["scale"], IMAGENET["ratio"])
        assert augmentation.box(height, width, seeded(seed)) == expected, seed


@pytest.mark.parametrize("height, width", [(375, 500), (160, 120)])
def test_views_are_those_of_the_published_transform_but_for_rounding(height, width):
    from torchvision.transforms import Compose, RandomHorizontalFlip, RandomResizedCrop

    augmentation, draws = augmentation_of(IMAGENET), np.random.default_rng(0)
    published = Compose([RandomResizedCrop(224), RandomHorizontalFlip()])
    for seed in range(30):
        image = smooth(draws, height, width)
        torch.manual_seed(seed)
        expected = np.asarray(published(Image.fromarray(image))).astype(int)
        found = augmentation.view(torch.from_numpy(image), 224, seeded(seed))
        assert found.dtype == torch.uint8 and found.is_contiguous()
        difference = np.abs(found.numpy() - expected)
        assert difference.max() <= 2 and (difference > 0).mean() < 0.1, seed


def test_half_of_the_views_are_flipped_if_any():
    picture = torch.from_numpy(smooth(np.random.default_rng(0), 40, 40))
    whole = {**IMAGENET, "scale": [1.0, 1.0], "ratio": [1.0, 1.0]}
    views = [augmentation_of(whole).view(picture, 40, seeded(seed)) for seed in range(400)]
    flipped = [torch.equal(view, picture.flip(1)) for view in views]
    assert all(torch.equal(view, picture) or turned for view, turned in zip(views, flipped))
    assert abs(sum(flipped) / 400 - 0.5) < 0.1
    never = augmentation_of({**whole, "flip": False})
    assert all(torch.equal(never.view(picture, 40, seeded(seed)), picture) for seed in range(20))


def test_a_view_is_a_function_of_its_generator():
    picture, augmentation = torch.from_numpy(smooth(np.random.default_rng(0), 90, 120)), augmentation_of(IMAGENET)
    torch.manual_seed(0)
    first = augmentation.view(picture, 32, generator(5))
    torch.manual_seed(1)
    assert torch.equal(augmentation.view(picture, 32, generator(5)), first)
    assert not torch.equal(augmentation.view(picture, 32, generator(6)), first)


def test_an_interpolation_of_parts_that_is_not_published_is_refused():
    with pytest.raises(UserError, match=r"views.augmentation.interpolation: unknown interpolation 'nearest'"):
        augmentation_of({**IMAGENET, "interpolation": "nearest"})


def test_imagenet_is_evaluated_on_the_pixels_of_the_published_transform():
    declared = components.datasets()["imagenet"]
    found = centre_view(torch.from_numpy(formula(300, 400)), 224).double() / 255
    found = (found - torch.tensor(declared["mean"])) / torch.tensor(declared["std"])
    expected = np.load(FIXTURES / "imagenet_test_transform.npy")
    assert np.abs(found.permute(2, 0, 1)[:, ::16, ::16].numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("size", [224, 96, 33])
def test_central_views_are_pillows_bytes_at_every_size(size):
    from torchvision.transforms import CenterCrop, Compose, Resize

    published, draws = Compose([Resize(round(size * 256 / 224)), CenterCrop(size)]), np.random.default_rng(0)
    for height, width in [(375, 500), (500, 333), (257, 301), (20, 31), (256, 256), *draws.integers(2, 400, (20, 2))]:
        image = smooth(draws, height, width)
        expected = np.array(published(Image.fromarray(image)))
        found = centre_view(torch.from_numpy(image), size)
        assert found.dtype == torch.uint8 and np.array_equal(found, expected), (height, width)


# Mixup


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_the_larger_of_two_of_the_beta_distribution(alpha):
    """By the first two moments of x (1 - x), which do not depend on which of the two x is."""
    share = Mixup(alpha).draw(generator(0, "mixup", 1), 200_000)
    assert share.dtype == torch.float64 and share.min() >= 0.5 and share.max() <= 1
    product = share * (1 - share)
    assert product.mean().item() == pytest.approx(alpha / (2 * (2 * alpha + 1)), rel=0.01)
    square = alpha * (alpha + 1) / (4 * (2 * alpha + 1) * (2 * alpha + 3))
    assert product.square().mean().item() == pytest.approx(square, rel=0.01)
    assert torch.equal(share, Mixup(alpha).draw(generator(0, "mixup", 1), 200_000))
    assert not torch.equal(share, Mixup(alpha).draw(generator(0, "mixup", 2), 200_000))


def mixing(size, offset=0):
    """A batch with mixup beside the one without it."""
    feeds = [generated_feed(specification_of(**more), 40) for more in ({}, {"SOLVER.MIXUP": 0.5})]
    for feed in feeds:
        feed.begin(2, 8)
    return [feed.batch(size, offset) for feed in feeds], feeds[1].plan["share"]


def test_mixtures_are_of_neighbours_in_a_batch_with_one_share_and_keep_the_larger_ones_label():
    (plain, mixed), shares = mixing(6)
    share = shares[8].item()
    assert share == pytest.approx(mixed.labels.share.item())
    for n in range(6):
        expected = share * plain.views[0][n] + (1 - share) * plain.views[0][n - 1]
        torch.testing.assert_close(mixed.views[0][n], expected)
        assert mixed.labels.partner[n] == plain.target[n - 1]
    assert torch.equal(mixed.target, plain.target) and torch.equal(mixed.index, plain.index)
    assert mixed.views[0].stride() == plain.views[0].stride(), "channels last"


def test_a_mixture_of_one_image_is_the_image():
    (plain, mixed), _ = mixing(1)
    torch.testing.assert_close(mixed.views, plain.views)
    logits = torch.randn(1, 10)
    torch.testing.assert_close(mixed.cross_entropy(logits), plain.cross_entropy(logits))


def test_all_views_of_an_image_are_mixed_alike():
    views = {"count": 2, "augmentation": {"crop_padding": 1, "flip": True}}
    split = generated_feed(specification_of(), 40).split
    plain, mixed = (Feed(split, {**views, **more}, seed=0).batch(6) for more in ({}, {"mixup": 0.5}))
    share = mixed.labels.share
    for before, after in zip(plain.views, mixed.views, strict=True):
        torch.testing.assert_close(after, share * before + (1 - share) * before.roll(1, 0))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_cross_entropy_is_the_mixture_of_both_labels(smoothing):
    logits, target, partner = (
        torch.randn(5, 10, generator=generator(0, "logits")),
        torch.arange(5),
        torch.tensor([4, 0, 1, 2, 3]),
    )
    soft = [F.one_hot(t, 10) * (1 - smoothing) + smoothing / 10 for t in (target, partner)]
    mixed = 0.7 * soft[0] + 0.3 * soft[1]
    expected = -(mixed * logits.log_softmax(dim=1)).sum(dim=1).mean()
    labels = Labels(target, smoothing, torch.tensor(0.7), partner)
    torch.testing.assert_close(Batch((), target, target, labels=labels).cross_entropy(logits), expected)

"""The step against a plain loop, its images against torchvision, its arithmetic as specified."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from standins import DIGITS, TEACHER, feed_of, learner_of
from torchvision.transforms import functional as transforms

from distillbench.data.augment import CropFlip
from distillbench.engine.device import prepare_device
from distillbench.engine.feed import Feed, Split, epoch_plan
from distillbench.engine.learner import Learner
from distillbench.engine.rates import learning_rate
from distillbench.engine.streams import initialisation
from distillbench.errors import UserError
from distillbench.models import build_network


@pytest.mark.parametrize("device", ["cuda:99", "meta", "bogus", "cpu:x"])
def test_a_device_that_is_not_here_is_one_line(specify, device):
    with pytest.raises(UserError, match=f"--device {device}: ") as error:
        prepare_device(specify(), device)
    assert "\n" not in str(error.value)


def test_fifty_float64_steps_equal_a_plain_independent_loop(specify, images):
    """Network, losses, GKD, optimizer, schedule, batches and BN statistics together."""
    keys = {
        "DISTILLER.TYPE": "KD",
        "KD.TEMPERATURE": 4,
        "KD.LOSS.CE_WEIGHT": 1,
        "KD.LOSS.KD_WEIGHT": 0.5,
        "KD.WARMUP": 4,
    }
    keys |= {"GKD": {}, "SOLVER.PRECISION": "fp64", "SOLVER.BATCH_SIZE": 32, "SOLVER.LR_DECAY_STAGES": [2, 4]}
    specification = specify(teacher=TEACHER, **keys)
    with initialisation(7, "teacher"):
        teacher = build_network("resnet8", "digits").eval().requires_grad_(False)
    learner = Learner(specification, feed_of(specification, images), teacher)
    with initialisation(0, "student"):
        student = build_network("resnet8", "digits").double()
    pixels = np.pad(images.train_images, ((0, 0), (4, 4), (4, 4), (0, 0))).astype(np.float64) / 255
    velocity = {name: torch.zeros_like(p) for name, p in student.named_parameters()}
    student.train()
    for epoch in range(1, 6):  # five epochs of ten batches, the last one of 12 images
        plan = epoch_plan(0, epoch, 300, 1, CropFlip(4, flip=False))
        learner.begin(epoch, learning_rate(specification.schedule, epoch))
        lr = 0.05 * 0.1 ** ((epoch > 2) + (epoch > 4))
        for start in range(0, 300, 32):
            learner.step(min(32, 300 - start))
            rows = plan["order"][start : start + 32].tolist()
            tops, lefts = (plan[name][0, start : start + 32].tolist() for name in ("row", "column"))
            crops = [pixels[i, t : t + 16, s : s + 16] for i, t, s in zip(rows, tops, lefts, strict=True)]
            x = torch.tensor((np.stack(crops) - DIGITS["mean"]) / DIGITS["std"]).permute(0, 3, 1, 2)
            y = torch.tensor(images.train_labels[rows])
            z, soft = student(x)[0], teacher(x)[0] / 4
            confidence = soft.softmax(1).max(1).values
            weight = 2 * torch.sigmoid(0.6 * (confidence - confidence.mean()))
            z.retain_grad()
            kl = (soft.softmax(1) * (soft.log_softmax(1) - (z / 4).log_softmax(1))).sum(1).mean() * 16
            gradient_kd = torch.autograd.grad(kl, z, retain_graph=True)[0]
            scale = weight[:, None].repeat(1, 10)
            scale[torch.arange(len(y)), y] = 1
            gradient_ce = torch.autograd.grad(F.cross_entropy(z, y), z, retain_graph=True)[0]
            total = gradient_ce + 0.5 * min(epoch / 4, 1) * gradient_kd * scale
            gradients = torch.autograd.grad(z, list(student.parameters()), total)
            with torch.no_grad():
                for (name, p), g in zip(student.named_parameters(), gradients, strict=True):
                    velocity[name] = 0.9 * velocity[name] + g + 1e-4 * p
                    p -= lr * velocity[name]
    for name, tensor in student.state_dict().items():
        torch.testing.assert_close(learner.student.state_dict()[name], tensor, rtol=1e-9, atol=1e-11, msg=name)


def test_crops_and_flips_are_torchvisions(specify, images):
    split = Split.put(*images.training, specify(), "cpu")
    feed = Feed(split, {"count": 2, "augmentation": {"kind": "crop_flip", "crop_padding": 4, "flip": True}}, seed=3)
    feed.begin(1, position=290)
    batch, plan = feed.batch(10), feed.plan
    assert len(batch.views) == 2 and 0 < plan["flip"].float().mean() < 1
    assert batch.index.tolist() == plan["order"][290:].tolist()
    drawn = zip(*(plan[name] for name in ("row", "column", "flip")), strict=True)
    for view, (rows, columns, flips) in zip(batch.views, drawn, strict=True):
        for k in range(10):
            image = transforms.to_tensor(images.train_images[batch.index[k]])
            image = transforms.crop(transforms.pad(image, 4), int(rows[290 + k]), int(columns[290 + k]), 16, 16)
            image = transforms.hflip(image) if flips[290 + k] else image
            torch.testing.assert_close(view[k], transforms.normalize(image, DIGITS["mean"], DIGITS["std"]))


def test_order_and_augmentation_are_functions_of_seed_and_epoch():
    one, again, other = (epoch_plan(s, 5, 300, 1, CropFlip(4, flip=False)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.values(), again.values(), strict=True))
    assert not any(torch.equal(one[name], other[name]) for name in ("order", "row", "column"))
    assert sorted(one["order"].tolist()) == list(range(300)) and set(one["row"].flatten().tolist()) == set(range(9))


@pytest.mark.parametrize("precision", ["fp64", "fp32", "tf32", "bf16"])
def test_threads_and_arithmetic_are_those_of_the_specification(specify, precision):
    backends = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = torch.get_num_threads(), *(backend.fp32_precision for backend in backends)
    specification = specify(**{"SOLVER.THREADS": 2, "SOLVER.PRECISION": precision})
    try:
        assert prepare_device(specification, "cpu") == torch.device("cpu")
        assert torch.get_num_threads() == 2
        assert [backend.fp32_precision for backend in backends] == ["tf32" if precision == "tf32" else "ieee", "ieee"]
    finally:
        torch.set_num_threads(before[0])
        for backend, value in zip(backends, before[1:], strict=True):
            backend.fp32_precision = value
    dtype = torch.float64 if precision == "fp64" else torch.float32
    learner = learner_of(specification, 300)
    assert {parameter.dtype for parameter in learner.student.parameters()} == {dtype, learner.trainer.lr.dtype}

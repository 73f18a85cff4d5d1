"""CRD: the draws and the memory, of which vectors of the official code have but the results."""

import pytest
import torch
from standins import TEACHER, learner_of

from distillbench.engine.streams import generator, initialisation
from distillbench.methods.base import Batch, Context, Output
from distillbench.methods.crd import CRD, Pairs
from distillbench.models import build_network

LABELS = torch.tensor([2, 0, 2, 1, 0, 2, 2, 1, 2, 0, 1, 2])  # of unequal classes, in no order


def pairs(seed=0, labels=LABELS, number=4000, mode="exact"):
    with initialisation(seed, "method"):
        return Pairs(labels, 4, {"NCE.K": number, "MODE": mode})


def drawn(pairs, epoch=1, index=None, labels=LABELS):
    index = torch.arange(len(labels)) if index is None else torch.tensor(index)
    return pairs(Batch((), labels[index], index), torch.tensor(float(epoch)))


@pytest.mark.parametrize("mode", ["exact", "relax"])
def test_positives_are_the_image_or_its_class_and_negatives_all_other_classes_alike(mode):
    positives, negatives = drawn(pairs(mode=mode)).split([1, 4000], dim=1)
    assert torch.equal(positives[:, 0], torch.arange(12)) == (mode == "exact")
    assert torch.equal(LABELS[positives[:, 0]], LABELS)
    for label, images in zip(LABELS, negatives, strict=True):
        others = (label != LABELS).nonzero()[:, 0]
        counts = images.bincount(minlength=12)
        assert counts.sum() == counts[others].sum() == 4000
        share = 4000 / len(others)
        assert ((counts[others] - share) ** 2 / share).sum() < 30  # chi squared of 10 at most: one in a thousand


def test_draws_are_a_function_of_seed_epoch_and_image():
    whole = drawn(pairs())
    assert torch.equal(drawn(pairs(), index=[7, 3]), whole[[7, 3]])
    assert torch.equal(drawn(pairs(seed=0)), whole)
    labels = torch.arange(1000) % 2
    many = {"labels": labels, "number": 500}
    first, later, seed = (drawn(pairs(s, **many), e, [0, 2, 4], labels) for s, e in ((0, 1), (0, 2), (1, 1)))
    rows = [*first, *later, *seed]
    for i, row in enumerate(rows):
        for other in rows[:i]:
            assert (
                len(set(row[1:].tolist()) & set(other[1:].tolist())) < 350
            )  # of 316 different ones each: 200 expected
            assert (row[1:] == other[1:]).sum() < 10


def test_the_positive_of_a_class_is_drawn_anew_each_epoch():
    relaxed = pairs(number=1, mode="relax")
    seen = torch.stack([drawn(relaxed, epoch)[:, 0] for epoch in range(1, 200)])
    for image in range(12):
        assert sorted(set(seen[:, image].tolist())) == (LABELS[image] == LABELS).nonzero()[:, 0].tolist()


def contrasted(images=64, **hyperparameters):
    """A CRD on pooled features, its student's and its teacher's `Output`, and a batch of them."""
    features = [torch.randn(8, 6, dtype=torch.float64, generator=generator(0, name)) for name in ("s", "t")]
    student, teacher = (Output(None, {"pooled_feat": feature}) for feature in features)
    context = Context(4, labels=torch.arange(images) % 4)
    context.student, context.teacher = student, teacher
    declared = {name: key.default for name, key in CRD.keys.items() if key.identity}
    with initialisation(0, "method"):
        method = CRD({**declared, "FEAT.DIM": 16, "NCE.K": 32, **hyperparameters}, context).double()
    index = torch.arange(0, 16, 2)
    return method, student, teacher, Batch((), context.labels[index], index)


def test_the_memory_of_the_batchs_images_moves_and_no_other():
    method, student, teacher, batch = contrasted(**{"NCE.MOMENTUM": 0.25})
    names = {"memory_v1": method.embed_s(student.pooled), "memory_v2": method.embed_t(teacher.pooled)}
    before = {name: getattr(method.contrast, name).clone() for name in names}
    method.distillation_loss(student, teacher, batch, {"epoch": torch.tensor(1.0)})
    assert all(torch.equal(getattr(method.contrast, name), memory) for name, memory in before.items())
    method.settle(1, lambda tensor: tensor)
    for name, embedding in names.items():
        expected, memory = before[name], getattr(method.contrast, name)
        moved = 0.25 * expected[batch.index] + 0.75 * embedding
        torch.testing.assert_close(memory[batch.index], moved / moved.norm(dim=1, keepdim=True), rtol=1e-6, atol=1e-6)
        others = torch.ones(64, dtype=torch.bool).index_fill(0, batch.index, False)
        assert torch.equal(memory[others], expected[others]) and not memory.requires_grad


def test_what_one_image_is_contrasted_with_does_not_depend_on_the_rest_of_the_batch():
    """The scores are those of the memory as it was before the batch, whichever comes first."""
    method, student, teacher, batch = contrasted()
    epoch = {"epoch": torch.tensor(3.0)}
    method.distillation_loss(student, teacher, batch, epoch)
    method.settle(1, lambda tensor: tensor)  # sets Z
    whole = method.distillation_loss(student, teacher, batch, epoch)
    alone = []
    for n in range(8):
        one = (Output(None, {"pooled_feat": output.pooled[n : n + 1]}) for output in (student, teacher))
        part = Batch((), batch.target[n : n + 1], batch.index[n : n + 1])
        alone.append(method.distillation_loss(*one, part, epoch))
    torch.testing.assert_close(torch.stack(alone).mean(), whole)


def test_the_memory_that_it_takes_is_said_before_the_first_step(specify):
    keys = {"DISTILLER.TYPE": "CRD", "CRD.FEAT.DIM": 100, "SOLVER.PRECISION": "fp64"}
    learner = learner_of(specify(teacher=TEACHER, **keys), 5000, build_network("resnet8", "digits"))
    expected = "CRD remembers 2 x 5000 x 100 numbers, 0.008 GB; a step takes another 0.04 MB an image of the batch"
    assert learner.method.notes() == [expected]
    kept = sum(tensor.nbytes for name, tensor in learner.method.state_dict().items())
    assert kept < 2 * 5000 * 100 * 8 * 1.05  # and hardly anything else, no list of negatives

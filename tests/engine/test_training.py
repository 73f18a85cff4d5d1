"""Whole trainings and their evaluations against a plain loop: torchvision's images, torch's SGD, published losses.

The loop takes two things from the package: the streams of initial weights, and the plan of an epoch, which a test of
its own looks at as the network sees it.
"""

import csv

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from standins import DIGITS, FIXTURES, OWN
from torchvision.transforms import functional as transforms

from distillbench.config import components, own_files
from distillbench.config.specification import read_specification
from distillbench.data import Images, digits
from distillbench.data.augment import CropFlip, Mixup
from distillbench.engine.feed import epoch_plan
from distillbench.engine.networks import LiveTeacher
from distillbench.engine.run import train
from distillbench.engine.streams import generator, initialisation
from distillbench.engine.weights import load_run, weights_digest
from distillbench.errors import UserError
from distillbench.evaluation.measure import write_metrics
from distillbench.evaluation.predictions import predict
from distillbench.files import read_json
from distillbench.methods.base import Batch
from distillbench.methods.none import Vanilla
from distillbench.models import build_network, network_cost
from distillbench.store import Store
from distillbench.store.layout import CHECKPOINTS, evaluations

HEAD = FIXTURES / "reused_head.py"
RATES = {1: 0.1, 2: 0.1, 3: 0.1 * 0.2, 4: 0.1 * 0.2 * 0.2}  # by epoch
SETTINGS = {
    "SOLVER.EPOCHS": 4,
    "SOLVER.LR": 0.1,
    "SOLVER.LR_DECAY_STAGES": [2, 3],
    "SOLVER.LR_DECAY_RATE": 0.2,
    "SOLVER.MOMENTUM": 0.8,
    "SOLVER.WEIGHT_DECAY": 1e-3,
    "SOLVER.BATCH_SIZE": 16,  # the last one is smaller
    "SOLVER.PRECISION": "fp64",
}


# The plain loop


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=RATES[1], momentum=0.8, weight_decay=1e-3)


def plain_loop(images, seed, losses, teacher=None, own=None, views=1, optimizer=sgd, rates=RATES, mixture=None):
    """({checkpoint: weights}, [{column: number}]) of a student resnet8.

    losses: (epoch, students, teachers, labels) -> ({name: loss}, {name: sums over the batch}), students and teachers
    being what the networks return, one a view; own: a module that is trained with the student; mixture: `Mixture`.
    """
    with initialisation(seed, "student"):
        student = build_network("resnet8", "digits").double()
    trained = nn.ModuleList([student, *filter(None, [own])])
    optimizer = optimizer(trained.parameters())
    labels, n, weights, rows = torch.tensor(images.train_labels), len(images.train_labels), {}, []
    steps = 0
    for epoch in rates:
        plan = epoch_plan(seed, epoch, n, views, CropFlip(4, flip=False))
        shares = mixture and Mixup(mixture.alpha).draw(generator(seed, "mixup", epoch), n)
        for group in optimizer.param_groups:
            group["lr"] = rates[epoch]
        student.train()
        sums, looks, seen = {}, {}, 0
        for start in range(0, n, 16):
            batch = plan["order"][start : start + 16].tolist()
            inputs = []
            for view in range(views):
                places = [(plan["row"][view, start + k], plan["column"][view, start + k]) for k in range(len(batch))]
                crops = [cropped(images.train_images[i], *place) for i, place in zip(batch, places, strict=True)]
                inputs.append(
                    torch.stack([transforms.normalize(crop, DIGITS["mean"], DIGITS["std"]) for crop in crops])
                )
            y = labels[batch]
            if mixture:
                mixture.share, mixture.partner = shares[start].item(), y.roll(1)
                inputs = [mixture.share * x + (1 - mixture.share) * x.roll(1, 0) for x in inputs]
            students, teachers = [student(x) for x in inputs], [teacher(x) for x in inputs] if teacher else None
            terms, observed = losses(epoch, students, teachers, y)
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
            found = {f"loss_{name}": term.item() * len(batch) for name, term in terms.items()}
            found |= hits(students[0][0], y)
            sums = {name: sums.get(name, 0) + value for name, value in found.items()}
            if steps % 5 == 0:
                numbers = {f"{name}_{i}": v for name, values in observed.items() for i, v in enumerate(values.tolist())}
                looks, seen = {name: looks.get(name, 0) + v for name, v in numbers.items()}, seen + len(batch)
            steps += 1
        row = {f"train_{name}": value / n for name, value in sums.items()}
        row |= {f"train_{name}": value / seen for name, value in looks.items()}
        row |= {"epoch": epoch, "lr": rates[epoch]}
        row["train_loss"] = sum(value for name, value in row.items() if name.startswith("train_loss_"))
        z, y = logits_of(student, images), torch.tensor(images.test_labels)
        row["test_loss_ce"] = -z.log_softmax(1)[range(len(y)), y].mean().item()
        row |= {f"test_{name}": value / len(y) for name, value in hits(z, y).items()}
        weights["last"] = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        if all(row["test_top1"] > earlier["test_top1"] for earlier in rows):
            weights["best"] = weights["last"]
        rows.append(row)
    return weights, rows


def cropped(image, top, left):
    padded = transforms.pad(transforms.convert_image_dtype(torch.tensor(image).permute(2, 0, 1), torch.float64), 4)
    return transforms.crop(padded, int(top), int(left), 16, 16)


def hits(z, y):
    """Percent times images."""
    ranked = z.argsort(dim=1, descending=True)
    return {
        "top1": 100 * sum(int(y[n]) == int(ranked[n, 0]) for n in range(len(y))),
        "top5": 100 * sum(int(y[n]) in ranked[n, :5].tolist() for n in range(len(y))),
    }


@torch.no_grad()
def logits_of(network, images):
    """Of the test images, one call, in evaluation mode."""
    pixels = [
        transforms.convert_image_dtype(torch.tensor(i).permute(2, 0, 1), torch.float64) for i in images.test_images
    ]
    x = torch.stack([transforms.normalize(image, DIGITS["mean"], DIGITS["std"]) for image in pixels])
    return network.double().eval()(x)[0]


def network_of(run, checkpoint, name="resnet8"):
    network = build_network(name, "digits")
    network.load_state_dict(torch.load(run / f"model.{checkpoint}.pt", weights_only=True)["model"])
    return network.double().eval()


# Published losses


def alone(epoch, students, teachers, y):
    return {"ce": F.cross_entropy(students[0][0], y)}, {}


class Mixture:
    """Of a loop whose images are mixed and whose labels are smoothed; share, partner: of the batch at hand."""

    def __init__(self, alpha, smoothing):
        self.alpha, self.smoothing = alpha, smoothing

    def around(self, losses, weight):
        """Losses with this cross entropy, of a weight, in place of their own."""

        def mixed(epoch, students, teachers, y):
            z, (terms, seen) = students[0][0], losses(epoch, students, teachers, y)
            own, other = (F.cross_entropy(z, t, label_smoothing=self.smoothing) for t in (y, self.partner))
            return {**terms, "ce": weight * (self.share * own + (1 - self.share) * other)}, seen

        return mixed


def kd(epoch, students, teachers, y):
    """CE_WEIGHT 0.4, KD_WEIGHT 0.6, TEMPERATURE 3, WARMUP 3."""
    z, t = students[0][0], teachers[0][0]
    loss = F.kl_div((z / 3).log_softmax(1), (t / 3).softmax(1), reduction="batchmean") * 9
    terms = {"ce": 0.4 * F.cross_entropy(z, y), "kd": min(epoch / 3, 1) * 0.6 * loss}
    return terms, observed(z, t, y, terms["kd"], t / 3)


def dkd_with_gkd(epoch, students, teachers, y):
    """CE_WEIGHT 0.7, ALPHA 0.5, BETA 2, T 2, WARMUP 2; K 3, SCALE 1.5."""
    z, t = students[0][0], teachers[0][0]
    confidence = (t / 2).softmax(1).amax(1)
    factor = 1.5 * torch.sigmoid(3 * (confidence - confidence.mean()))
    weights = factor[:, None].repeat(1, 10)
    weights[range(len(y)), y] = 1
    scaled = z.clone()
    scaled.register_hook(lambda gradient: gradient * weights)
    mask = F.one_hot(y, 10).bool()
    binary = [
        torch.stack([p[mask], p[~mask].view(len(y), 9).sum(1)], dim=1)
        for p in ((scaled / 2).softmax(1), (t / 2).softmax(1))
    ]
    tckd = F.kl_div(binary[0].log(), binary[1], reduction="sum") / len(y) * 4
    rest = [logits[~mask].view(len(y), 9) / 2 for logits in (scaled, t)]
    nckd = F.kl_div(rest[0].log_softmax(1), rest[1].softmax(1), reduction="sum") / len(y) * 4
    terms = {"ce": 0.7 * F.cross_entropy(z, y), "kd": min(epoch / 2, 1) * (0.5 * tckd + 2 * nckd)}
    bins = [int(c * 20) for c in confidence]
    factors = torch.tensor([sum(f.item() for f, b in zip(factor, bins, strict=True) if b == i) for i in range(20)])
    return terms, {**observed(z, t, y, terms["kd"], t / 2), "factor": factors}


def observed(z, t, y, loss, softened):
    """Sums over the batch: the gradient at the label and the teacher's five largest other classes; confidences."""
    (gradient,) = torch.autograd.grad(loss, z, retain_graph=True)
    picked = torch.stack(
        [
            torch.stack(
                [gradient[n, c] for c in [int(y[n]), *(c for c in t[n].argsort(descending=True) if c != y[n])][:6]]
            )
            for n in range(len(y))
        ]
    ) * len(y)
    bins = [int(c * 20) for c in softened.softmax(1).amax(1)]
    return {
        "kd_gradient": picked.sum(0),
        "kd_gradient_abs": picked.abs().sum(0),
        "confidence": torch.tensor([bins.count(i) for i in range(20)]),
    }


def hints(own):
    """Two views; RAMP 3."""

    def losses(epoch, students, teachers, y):
        pairs = zip(students, teachers, strict=True)
        hint = sum(((own(s["feats"][-1]) - t["feats"][-1]) ** 2).mean() for (_, s), (_, t) in pairs)
        return {"ce": F.cross_entropy(students[0][0], y), "hint": min(epoch / 3, 1) * hint}, {}

    return losses


# The comparison


def declare(name, images):
    """Make images a dataset that specifications can name, until the module's tests are done."""
    components.datasets()[name] = {**DIGITS, "name": name, "sha256": images.digest}
    return images


@pytest.fixture(scope="module")
def images(store):
    """The digits with 150 test images: a whole batch of the evaluation and a part of one."""
    train_images, train_labels, test_images, test_labels = digits.arrays()
    return declare("some", Images(train_images, train_labels, test_images[:150], test_labels[:150]))


@pytest.fixture(scope="module")
def few(images):
    """The same with a third of the training images."""
    fewer = {"train_images": images.train_images[::3], "train_labels": images.train_labels[::3]}
    return declare("few", images._replace(**fewer))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    before = dict(components.datasets())
    own_files.use([str(OWN)])
    yield Store(tmp_path_factory.mktemp("training"))
    own_files.use([])
    components.datasets().clear()
    components.datasets().update(before)


@pytest.fixture(scope="module")
def teacher(store, images, specify):
    """The id of a teacher whose best epoch is not its last: it is tested with other labels than it learns."""
    images = declare("mislabelled", images._replace(test_labels=(images.test_labels + 1) % 10))
    keys = {"DISTILLER.STUDENT": "resnet14", "SOLVER.EPOCHS": 6, "SOLVER.BATCH_SIZE": 25, "SOLVER.LR_DECAY_STAGES": [5]}
    specification = specify(seed=7, **keys, **{"DATASET.TYPE": "mislabelled"})
    finish(store, specification, images)
    record = read_json(store.run(specification.id) / "record.json")
    assert record["best_epoch"] < 6 and record["weights"]["best"] != record["weights"]["last"]
    return specification.id


def finish(store, specification, images, report=lambda line: None):
    run = specification.id
    train(specification, images, store.run(run), store.work(run), store.runs, device="cpu", report=report)
    for checkpoint in CHECKPOINTS:
        predict(store.run(run), checkpoint, images, device="cpu")
    return store.run(run)


def agree(run, weights, rows):
    """A run's checkpoints and history are those of the plain loop."""
    for checkpoint in CHECKPOINTS:
        found = network_of(run, checkpoint).state_dict()
        for name, tensor in weights[checkpoint].items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-7, atol=1e-9, msg=f"{checkpoint} {name}")
    with open(run / "history.csv", newline="") as file:
        history = [{name: float(value) for name, value in line.items()} for line in csv.DictReader(file)]
    assert len(history) == len(rows)
    for line, row in zip(history, rows, strict=True):
        assert line == pytest.approx(row, rel=1e-7, abs=1e-9)


METHODS = {
    "KD": (kd, {"KD.LOSS.CE_WEIGHT": 0.4, "KD.LOSS.KD_WEIGHT": 0.6, "KD.TEMPERATURE": 3, "KD.WARMUP": 3}),
    "DKD": (
        dkd_with_gkd,
        {
            "DKD.CE_WEIGHT": 0.7,
            "DKD.ALPHA": 0.5,
            "DKD.BETA": 2,
            "DKD.T": 2,
            "DKD.WARMUP": 2,
            "GKD.K": 3,
            "GKD.SCALE": 1.5,
        },
    ),
}


@pytest.fixture(scope="module")
def student(store, images, specify):
    """The directory of a student that learned alone."""
    return finish(store, specify(seed=5, **SETTINGS, **{"DATASET.TYPE": "some"}), images)


def test_a_training_is_that_of_a_plain_loop(student, images):
    agree(student, *plain_loop(images, 5, alone))


HALF = 0.5 * (1 + np.cos(np.pi / 3))  # of two thirds of a cosine
RECIPES = {  # keys, torch's optimizer, rates by epoch
    "AdamW": (
        {
            "TYPE": "AdamW",
            "LR": 0.003,
            "WEIGHT_DECAY": 0.05,
            "BETA1": 0.8,
            "EPS": 1e-3,
            "SCHEDULE": "cosine",
            "WARMUP_EPOCHS": 1,
            "MIN_LR": 1e-3,
        },
        lambda parameters: torch.optim.AdamW(parameters, betas=(0.8, 0.999), eps=1e-3, weight_decay=0.05),
        {1: 0.0015, 2: 0.003, 3: 1e-3 + 2e-3 * HALF, 4: 1e-3 + 2e-3 * (1 - HALF)},
    ),
    "Nesterov": (
        {"LR": 0.1, "NESTEROV": True, "LR_DECAY_STAGES": [3], "WARMUP_EPOCHS": 2},
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True),
        {1: 0.1 / 3, 2: 0.2 / 3, 3: 0.1, 4: 0.01},
    ),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_trained_as_by_a_plain_loop_with_the_optimizer_of_torch(store, few, specify, recipe):
    solver, optimizer, rates = RECIPES[recipe]
    keys = {"EPOCHS": 4, "BATCH_SIZE": 16, "PRECISION": "fp64", **solver}
    specification = specify(
        seed=6, **{f"SOLVER.{name}": value for name, value in keys.items()}, **{"DATASET.TYPE": "few"}
    )
    agree(finish(store, specification, few), *plain_loop(few, 6, alone, optimizer=optimizer, rates=rates))


MIXED = {"SOLVER.MIXUP": 0.4, "SOLVER.LABEL_SMOOTHING": 0.1}


def test_mixed_images_and_smooth_labels_are_trained_on_as_by_a_plain_loop(store, few, specify):
    """The last batch has four images; test images are as they are, and the loss on them is that on their labels."""
    mixture = Mixture(0.4, 0.1)
    run = finish(store, specify(seed=6, **SETTINGS, **MIXED, **{"DATASET.TYPE": "few"}), few)
    agree(run, *plain_loop(few, 6, mixture.around(alone, 1), mixture=mixture))


@pytest.mark.parametrize("method", ["KD", "DKD"])
def test_a_teacher_sees_the_mixed_images(store, few, specify, teacher, method):
    """And the label of the target class, of the larger share, is that of DKD and GKD."""
    (losses, keys), mixture = METHODS[method], Mixture(0.4, 0.1)
    taught = {"kind": "run", "id": teacher, "checkpoint": "last"}
    keys = {**SETTINGS, **MIXED, **keys, "DATASET.TYPE": "few", "DISTILLER.TYPE": method}
    run = finish(store, specify(seed=4, teacher=taught, **keys), few)
    losses = mixture.around(losses, 0.4 if method == "KD" else 0.7)
    network = network_of(store.run(teacher), "last", "resnet14")
    agree(run, *plain_loop(few, 4, losses, network, mixture=mixture))
    assert read_json(run / "record.json")["engine"]["teacher_source"] == "live"


@pytest.mark.parametrize(("method", "checkpoint"), [("KD", "best"), ("DKD", "last")])
def test_a_distillation_is_that_of_a_plain_loop(store, few, specify, teacher, method, checkpoint):
    losses, keys = METHODS[method]
    taught = {"kind": "run", "id": teacher, "checkpoint": checkpoint}
    keys = {**SETTINGS, **keys, "DATASET.TYPE": "few", "DISTILLER.TYPE": method}
    run = finish(store, specify(seed=4, teacher=taught, **keys), few)
    agree(run, *plain_loop(few, 4, losses, network_of(store.run(teacher), checkpoint, "resnet14")))
    record = read_json(run / "record.json")
    assert record["teacher_weights"] == read_json(store.run(teacher) / "record.json")["weights"][checkpoint]


def test_a_method_with_a_module_and_two_views_is_trained_as_by_a_plain_loop(store, few, specify, teacher):
    keys = {"DATASET.TYPE": "few", "DISTILLER.TYPE": "FeaturesAndModules", "FeaturesAndModules.RAMP": 3}
    taught = {"kind": "run", "id": teacher, "checkpoint": "last"}
    run = finish(store, specify(seed=5, teacher=taught, **SETTINGS, **keys), few)
    with initialisation(5, "method"):
        own = nn.Conv2d(64, 64, 1).double()
    agree(run, *plain_loop(few, 5, hints(own), network_of(store.run(teacher), "last", "resnet14"), own, views=2))


def test_what_a_method_notes_is_said_before_the_first_epoch(store, few, specify, teacher):
    keys = {"DATASET.TYPE": "few", "DISTILLER.TYPE": "CRD", "CRD.NCE.K": 16, "SOLVER.EPOCHS": 1}
    taught, lines = {"kind": "run", "id": teacher, "checkpoint": "last"}, []
    finish(store, specify(seed=5, teacher=taught, **keys), few, lines.append)
    assert [line.split()[0] for line in lines if line.startswith(("CRD", "epoch"))] == ["CRD", "epoch"]


def test_what_a_method_deploys_is_evaluated_saved_and_predicted_with(store, few, specify, teacher, tmp_path):
    """A student whose classifier is the teacher's; its own is never used."""
    own_files.use([str(HEAD)])
    keys = {**SETTINGS, "DATASET.TYPE": "few", "DISTILLER.TYPE": "ReusedHead", "SOLVER.LR": 0.01}
    taught = {"kind": "run", "id": teacher, "checkpoint": "last"}
    run = finish(store, specify(seed=5, teacher=taught, **keys), few)
    own_files.use([str(OWN)])
    weights = torch.load(run / "model.last.pt", weights_only=True)["model"]
    head = torch.load(store.run(teacher) / "model.last.pt", weights_only=True)["model"]
    assert torch.equal(weights["head.weight"], head["fc.weight"].double()) and "student.fc.weight" in weights
    student = build_network("resnet8", "digits").double().eval()
    student.load_state_dict({n.removeprefix("student."): t for n, t in weights.items() if n.startswith("student.")})
    pixels = [transforms.convert_image_dtype(torch.tensor(i).permute(2, 0, 1), torch.float64) for i in few.test_images]
    with torch.no_grad():
        pooled = student(torch.stack([transforms.normalize(p, DIGITS["mean"], DIGITS["std"]) for p in pixels]))[1]
        hidden = F.linear(pooled["pooled_feat"], weights["projector.weight"], weights["projector.bias"])
        logits = F.linear(hidden, weights["head.weight"], weights["head.bias"])
    with np.load(
        run / evaluations(read_specification(run / "spec.json"))["last"].folder / "predictions.npz"
    ) as archive:
        np.testing.assert_allclose(archive["logits"].astype(float), logits, rtol=1e-3, atol=1e-4)
    with open(run / "history.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    right = (logits.argmax(1) == torch.tensor(few.test_labels)).double().mean().item()
    assert float(last["test_top1"]) == pytest.approx(100 * right)
    alone, deployed = (network_cost(network, 16)[0] for network in (student, build_network("resnet14", "digits")))
    parameters = read_json(run / "record.json")["parameters"]
    assert parameters == alone + sum(weights[f"{name}.{part}"].numel() for name in ("projector", "head")
                                     for part in ("weight", "bias")) != deployed  # fmt: skip
    edited = tmp_path / "edited.py"
    edited.write_text(HEAD.read_text().replace("(difference**2)", "(difference**4)"))
    for files in ([OWN], [OWN, edited]):
        own_files.use(list(map(str, files)))
        with pytest.raises(UserError, match="the file of method ReusedHead is not here as it was"):
            load_run(run, "last")
    own_files.use([str(OWN)])


def test_a_method_may_depend_on_labels_seed_and_networks(store, few, specify, tmp_path, monkeypatch):
    seen, build = [], Vanilla.__init__
    monkeypatch.setattr(
        Vanilla, "__init__", lambda self, keys, context: (seen.append(context), build(self, keys, context))[1]
    )
    specification = specify(seed=3, **{"SOLVER.EPOCHS": 1, "DATASET.TYPE": "few"})
    train(specification, few, tmp_path / "a", tmp_path / "w", tmp_path, device="cpu", report=lambda line: None)
    (context,) = seen
    assert (context.num_images, context.num_classes, context.seed) == (100, 10, 3)
    assert context.labels.tolist() == few.train_labels.tolist()
    assert isinstance(context.student_network, type(build_network("resnet8", "digits"))) and context.teacher is None


@pytest.mark.parametrize(
    ("wants", "features"), [("logits", set()), ("network", {"feats", "preact_feats", "pooled_feat"})]
)
def test_a_teacher_of_logits_has_no_features(wants, features):
    network = build_network("resnet8", "digits").eval()
    batch = Batch((torch.zeros(2, 3, 16, 16),), torch.tensor([0, 1]), torch.tensor([0, 1]))
    (output,) = LiveTeacher(network, "fp32", wants == "network")(batch)
    assert output.features.keys() == features and not output.logits.requires_grad


def test_every_epoch_has_an_order_and_crops_of_its_own(store, tmp_path, specify):
    """As the network sees it: image i has one colour, which is i, and the padding around it is black."""
    numbers = np.arange(300)
    colours = np.stack([1 + numbers % 250, 1 + numbers // 250, np.full(300, 255)], axis=1).astype(np.uint8)
    drawn = np.broadcast_to(colours[:, None, None], (300, 16, 16, 3)).copy()
    drawn = declare("colours", Images(drawn, numbers % 10, drawn[:10], numbers[:10]))
    seen = []

    def look(module, inputs):
        if isinstance(module, type(build_network("resnet8", "digits"))) and module.training:
            mean, std = (torch.tensor(DIGITS[key])[:, None, None] for key in ("mean", "std"))
            seen.extend(((inputs[0] * std + mean) * 255).round().int())

    hook = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        specification = specify(**{"DATASET.TYPE": "colours", "SOLVER.EPOCHS": 3, "SOLVER.LR": 1e-6})
        train(specification, drawn, tmp_path / "a", tmp_path / "w", tmp_path, device="cpu", report=lambda line: None)
    finally:
        hook.remove()
    assert len(seen) == 900
    orders, crops, places_in_order = [], [], []
    for epoch in range(3):
        views = seen[300 * epoch : 300 * (epoch + 1)]
        order = [int(view[0, 8, 8]) - 1 + 250 * (int(view[1, 8, 8]) - 1) for view in views]
        assert sorted(order) == list(range(300))
        places = {i: black_border(view[2]) for i, view in zip(order, views, strict=True)}
        assert {top for top, _ in places.values()} == {left for _, left in places.values()} == set(range(-4, 5))
        orders.append(order)
        crops.append([places[i] for i in range(300)])  # by image, and below by place in the epoch
        places_in_order.append([places[i] for i in order])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert sum(a == b for a, b in zip(orders[one], orders[other], strict=True)) < 15  # by chance: 1
        for drawn in (crops, places_in_order):
            assert sum(a == b for a, b in zip(drawn[one], drawn[other], strict=True)) < 30  # by chance: 300 / 81


def black_border(view):
    """(rows, columns) of black pixels: positive above and on the left, negative below and on the right."""
    counts = []
    for dim in (1, 0):
        lit = view.amax(dim).nonzero().flatten().tolist()
        counts.append(lit[0] if lit[0] else lit[-1] - 15)
    return tuple(counts)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_predictions_are_the_networks_logits_for_the_test_images(student, images, checkpoint):
    folder = evaluations(read_specification(student / "spec.json"))[checkpoint].folder
    with np.load(student / folder / "predictions.npz") as archive:
        found = dict(archive)
    expected = logits_of(network_of(student, checkpoint), images)
    np.testing.assert_allclose(found["logits"].astype(float), expected, rtol=1e-3, atol=1e-4)  # they are stored in fp16
    assert found["targets"].tolist() == images.test_labels.tolist()
    assert found["dataset_sha256"] == images.digest
    assert found["weights_sha256"] == read_json(student / "record.json")["weights"][checkpoint]
    assert found["run_sha256"] == read_specification(student / "spec.json").digest
    ranks = {"first_logit": expected.amax(1), "log_sum_exp": expected.logsumexp(1)}  # of the logits as computed
    ranks["target_logit"] = expected[range(150), images.test_labels.tolist()]
    for name, values in ranks.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)
    assert found["precision"] == "fp64"


def test_metrics_history_record_and_checkpoints_agree(store, student, images):
    run, record = student.relative_to(store.runs).as_posix(), read_json(student / "record.json")
    with open(student / "history.csv", newline="") as file:
        history = {int(line["epoch"]): line for line in csv.DictReader(file)}
    top1 = {epoch: float(line["test_top1"]) for epoch, line in history.items()}
    best = min(epoch for epoch in top1 if top1[epoch] == max(top1.values()))
    assert (record["run"], record["best_epoch"], list(history)) == (run, best, [1, 2, 3, 4])
    for checkpoint, epoch in (("last", 4), ("best", best)):
        weights = torch.load(student / f"model.{checkpoint}.pt", weights_only=True)["model"]
        assert record["weights"][checkpoint] == weights_digest(weights)
        assert write_metrics(store, run, checkpoint)["predictions"]["ranked_in"] == "fp64"
        values = {entry["metric"]: entry["value"] for entry in store.metrics(run, checkpoint)}
        assert values["top1"] == pytest.approx(float(history[epoch]["test_top1"]))
        assert values["top5"] == pytest.approx(float(history[epoch]["test_top5"]))
        assert values["nll"] == pytest.approx(float(history[epoch]["test_loss_ce"]))
    assert (record["parameters"], record["multiply_adds"]) == network_cost(build_network("resnet8", "digits"), 16)
    assert record["images_per_second"] * record["seconds"] == pytest.approx(4 * 300, rel=0.01)
    assert (record["threads"], record["attempts"], record["teacher_weights"]) == (1, 1, None)


def test_a_run_learns(images, specify, tmp_path):
    keys = {"SOLVER.EPOCHS": 12, "SOLVER.LR": 0.1, "SOLVER.LR_DECAY_STAGES": [9], "SOLVER.BATCH_SIZE": 25}
    keys["DATASET.TYPE"] = "some"
    train(specify(**keys), images, tmp_path / "a", tmp_path / "w", tmp_path, device="cpu", report=lambda line: None)
    with open(tmp_path / "a" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["test_top1"]) > 60  # chance: 10
    assert float(rows[-1]["train_loss"]) < 0.5 * float(rows[0]["train_loss"])

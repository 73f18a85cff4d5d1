"""Parity: this code against reference vectors that were obtained by running the official repositories.

A folder of reference vectors has the parts losses/METHOD/CASE, losses_integration/STUDENT__TEACHER/METHOD,
models/DICT__NAME and optim/CASE, each case a JSON description with arrays beside it in an .npz. Values agree if
|a - b| <= atol + rtol * max|b| over an array; the tolerances below are those stated with the vectors.
"""

import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from distillbench.config import components
from distillbench.config.resolve import flatten, resolve
from distillbench.config.specification import build_specification
from distillbench.engine.loop import learning_rate
from distillbench.errors import UserError
from distillbench.files import read_json
from distillbench.methods import build_method
from distillbench.methods.base import Batch, Context, Output
from distillbench.methods.dkd import nckd_loss, tckd_loss
from distillbench.methods.kd import kd_loss
from distillbench.models import build_network
from distillbench.trainers import build_trainer

LOSS = {"float64": (1e-9, 1e-11), "float32": (1e-5, 2e-6)}  # dtype: (rtol, atol)
GRADIENT = {"float64": (1e-8, 1e-10), "float32": (1e-4, 2e-5)}
MODEL = (1e-8, 1e-10)
INTEGRATION, INTEGRATION_GRADIENT = (1e-8, 1e-10), (1e-7, 1e-10)
OPTIMIZER = {"float64": (1e-12, 1e-13), "float32": (1e-5, 1e-6)}
SCHEDULE = (1e-14, 0.0)

# Name of a method in the vectors: what it is here, as the keys of a params file.
METHODS = {
    "KD": {"DISTILLER.TYPE": "KD"},
    "KD_in_GKD_repo": {"DISTILLER.TYPE": "KD", "DEFAULTS": "gkd"},
    "GradientKD": {"DISTILLER.TYPE": "GradientKD"},
    "DKD": {"DISTILLER.TYPE": "DKD"},
    "DKD_GKD": {"DISTILLER.TYPE": "DKD", "GKD": {}},
}


PARTS = ("losses", "losses_integration", "models", "optim")
FAILURE = re.compile("error|exception|raise|fail", re.IGNORECASE)  # in keys that record how the official code failed
# Keys of a description that hold results or tell how the arrays hold them.
RESULTS = ("arrays", "parameter_order_of_grad_arrays", "format", "eval", "train", "lr_per_epoch", "state_dict")
WITHOUT_ARRAYS = ("lr_schedule*.json", "*.structure.json")  # whose results are in the description
INTERMEDIATE = "aux."  # arrays of values on the way to the results; nothing here has their names


class Mismatch(Exception):
    """A value that is not the reference's."""


class NotCovered(Exception):
    """A case that this version has no counterpart for."""


class NothingToCompare(Exception):
    """A case without a number to compare: a record that the official code failed, or one of nothing but overflow."""


class Unreadable(Exception):
    """A file that is damaged, incomplete or something else than a case."""


class Arrays(dict):
    """Arrays of a case by name; knows which of them a check has read, compared or found to hold no finite number."""

    def __init__(self, arrays):
        super().__init__(arrays)
        self.read, self.compared, self.overflowed = set(), set(), set()

    def __getitem__(self, name):
        array = super().__getitem__(name)
        self.read.add(name)
        return array

    def compare(self, name, ours, tolerance, step=None, overflow=False):
        """Compare with an array, or with its entry of a step; raises as the function `compare`."""
        place, stated = (name, self[name]) if step is None else (f"{name}[{step}]", self[name][step])
        found = self.compared if compare(place, ours, stated, tolerance, overflow) else self.overflowed
        if stated.size:
            found.add(name)


def check_folder(folder):
    """Check every case of a folder and print a line each, whatever the files hold.

    Returns 0, or 1 if any differs or is unreadable, or if nothing was compared.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected reference vectors (losses/, models/, optim/, ...)")
    counts, uncovered = Counter(), Counter()
    for path, problem in files(folder):
        relative = path.relative_to(folder)
        outcome, detail = ("UNREADABLE", problem) if problem else check_file(path, relative)
        counts[outcome] += 1
        if outcome == "not covered yet":
            uncovered[detail] += 1
        print(f"{outcome:8} {relative}" + (f" ({detail})" if outcome == "agrees" else f": {detail}"))
    for what, number in sorted(uncovered.items()):
        print(f"not covered yet: {what} ({number} file{'s' if number > 1 else ''})")
    if not counts:
        print(f"no vectors in {folder}: a case is NAME.json, with its arrays in NAME.npz")
    agree, bad = counts["agrees"], counts["DIFFERS"] + counts["UNREADABLE"]
    print(
        f"{agree} agree, {counts['DIFFERS']} differ, {counts['not covered yet']} not covered yet,"
        f" {counts['nothing to compare']} with nothing to compare, {counts['UNREADABLE']} unreadable"
    )
    return 0 if agree and not bad else 1


def files(folder):
    """[(path, problem or "")] of the descriptions below a folder, arrays without one and folders that are closed."""
    found, seen = [], set()

    def unreadable(error):
        found.append((Path(error.filename), f"cannot be listed ({error.strerror})"))

    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(place, name)) not in seen]
        found += [(Path(place, name), "") for name in (*names, *folders) if name.endswith(".json")]
        described = {name.removesuffix(".json") for name in (*names, *folders)}
        lone = [name for name in names if name.endswith(".npz") and name.removesuffix(".npz") not in described]
        found += [(Path(place, name), "has no .json beside it") for name in lone]
    return sorted(found)


def check_file(path, relative):
    """(outcome, detail) of one file."""
    try:
        description, arrays = read_case(path)
        number = check_case(relative, description, arrays)
        unread = [name for name in arrays if name not in arrays.read and not name.startswith(INTERMEDIATE)]
        if unread:
            raise NotCovered(f"array {unread[0]}")
        if not number and arrays.overflowed:
            raise NothingToCompare("no number in it is finite")
        if not number:
            raise Unreadable("holds nothing to compare")
        silent = len(arrays.overflowed - arrays.compared)
        return "agrees", f"{number} arrays" + (f"; {silent} without a finite number" if silent else "")
    except Mismatch as error:
        return "DIFFERS", str(error)
    except NotCovered as reason:
        return "not covered yet", str(reason)
    except NothingToCompare as reason:
        return "nothing to compare", str(reason)
    except Unreadable as error:
        return "UNREADABLE", str(error)
    except KeyError as error:
        return "UNREADABLE", f"has no {error}"
    except Exception as error:  # what a file holds must not keep the others from being compared
        return "UNREADABLE", f"not a case of this format ({type(error).__name__}: {first_line(error)})"


def read_case(path):
    """(description, arrays by name) of a case; what the description states of its arrays is true."""
    if not path.is_file():
        raise Unreadable("is no plain file")
    try:
        description = read_json(path)
    except UserError as error:
        raise Unreadable(first_line(error).removeprefix(f"{path}: ").removesuffix("; restore or remove it")) from None
    beside = path.with_name(path.name.removesuffix(".json") + ".npz")
    exist = os.path.lexists(beside)
    arrays = load_arrays(beside) if exist else {}
    if not isinstance(description, dict):
        return description, Arrays(arrays)
    results = exist or any(map(description.get, RESULTS)) or any(map(path.match, WITHOUT_ARRAYS))
    for key, value in description.items() if not results else ():
        if FAILURE.search(key) and isinstance(value, str) and value.strip():
            raise NothingToCompare(f"the official code failed ({key}: {first_line(value.strip())})")
    if description.get("npz") and not exist:
        raise Unreadable(f"its arrays are missing, {beside.name}")
    stated = description.get("arrays")
    for name, entry in stated.items() if isinstance(stated, dict) else ():
        array = arrays[name]
        if [list(array.shape), str(array.dtype)] != [entry["shape"], entry["dtype"]]:
            raise Unreadable(f"{name} is {array.dtype} {list(array.shape)}, stated {entry['dtype']} {entry['shape']}")
    return description, Arrays(arrays)


def load_arrays(path):
    """{name: array} of an .npz file of numbers."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
    except Exception as error:  # a damaged zip raises half a dozen types
        raise Unreadable(f"{path.name} is not readable ({first_line(error) or type(error).__name__})") from None
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise Unreadable(f"{path.name}: {name} holds {array.dtype}, no numbers")
    return arrays


def first_line(text):
    return next(iter(str(text).splitlines()), "")


def check_case(relative, description, arrays):
    """Compare one case; returns the number of arrays compared. Raises Mismatch, NotCovered or, as anything, Unreadable.

    relative: path of its description; description, arrays: its contents, as of `read_case`.
    """
    part, place, name = relative.parts[0], relative.parts[1:-1], relative.name
    if name.startswith("INDEX"):
        raise NotCovered("the indexes, which hold no numbers")
    if part in PARTS and not isinstance(description, dict):
        raise Unreadable(f"holds a {type(description).__name__}, expected an object with named entries")
    if part == "losses" and len(place) == 1:
        return check_loss(description, arrays, place[0])
    if part == "losses_integration" and len(place) == 1:
        return check_integration(description, arrays, relative.stem)
    if part == "models" and not place and name.endswith(".structure.json"):
        return check_structure(description)
    if part == "models" and not place and name.endswith(".parity.json"):
        return check_model(description, arrays)
    if part == "optim" and not place and name.startswith("lr_schedule"):
        return check_schedule(description)
    if part == "optim" and not place:
        return check_trainer(description, arrays)
    raise NotCovered("/".join((part, *place)) if len(relative.parts) > 1 else name)


def specification_of(keys):
    """The specification of a run with these configuration keys. Raises NotCovered if no configuration has them."""
    try:
        config, transforms, _ = resolve((), flatten(keys, "setting"))
    except UserError as error:
        raise NotCovered(re.sub("^setting[.:] *", "setting ", str(error))) from None
    return build_specification(config, transforms=transforms, teacher=None, seed=0)


def known_precision(dtype):
    if dtype not in LOSS:
        raise NotCovered(f"dtype {dtype}")
    return dtype


def compare(name, ours, reference, tolerance, overflow=False):
    """Whether the reference states a finite number. Raises Mismatch unless two arrays agree.

    overflow: the reference may be NaN or infinite; values of ours are finite there or the same.
    """
    ours = np.asarray(ours.detach() if isinstance(ours, torch.Tensor) else ours, dtype=np.float64)
    reference = np.asarray(reference, dtype=np.float64)
    if ours.shape != reference.shape:
        raise Mismatch(f"{name}: shape {ours.shape}, reference {reference.shape}")
    rtol, atol = tolerance
    stated = np.isfinite(reference)
    if not (overflow or stated.all()):
        raise Unreadable(f"{name} is not finite, and the description says nothing of that")
    allowed = atol + rtol * np.abs(reference[stated]).max(initial=0.0)
    difference = np.abs(ours[stated] - reference[stated]).max(initial=0.0)
    if not difference <= allowed:
        raise Mismatch(f"{name}: off by {difference:.3g}, allowed {allowed:.3g}")
    if not (stated | np.isfinite(ours) | (ours == reference) | (np.isnan(ours) & np.isnan(reference))).all():
        raise Mismatch(f"{name}: is not finite in another way than the reference")
    return bool(stated.any())


def says_overflow(description):
    """Whether a case's own words say that the official numbers are not all finite."""
    words = json.dumps([description.get(key) for key in ("case", "description", "notes")])
    said = "(?<![a-z])(nan|inf|infinit[ey]|non-?finite|overflows?|extreme)(?![a-z])"
    return re.search(said, words, re.IGNORECASE) is not None


def check_loss(description, arrays, method_name):
    if method_name not in METHODS:
        raise NotCovered(f"losses of {method_name}")
    dtype, overflow = known_precision(description["dtype"]), says_overflow(description)
    method = reference_method(method_name, description, arrays["in.logits_student"].shape[1])
    epochs = numbered_epochs(arrays)
    if description["epochs"] != (epochs or None):
        raise Unreadable(f"states epochs {description['epochs']}, its arrays have {epochs or 'none'}")
    target = torch.from_numpy(arrays["in.target"])
    teacher = Output(torch.from_numpy(arrays["in.logits_teacher"]), {})

    def check(name, suffix, loss, logits):
        arrays.compare(f"out.{name}{suffix}", loss, LOSS[dtype], overflow=overflow)
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        of = name.removeprefix("loss_")
        arrays.compare(f"grad.{of}.logits_student{suffix}", gradient, GRADIENT[dtype], overflow=overflow)
        return gradient

    for epoch in epochs or [None]:
        suffix = f"@epoch{epoch}" if epoch else ""
        logits = torch.from_numpy(arrays["in.logits_student"]).requires_grad_()
        schedule = {
            name: torch.tensor(value, dtype=logits.dtype) for name, value in method.schedule(epoch or 1).items()
        }
        losses = method.losses(Output(logits, {}), teacher, Batch((), target, target), schedule)
        for name, loss in losses.items():
            check(f"loss_{name}", suffix, loss, logits)
        gradient = check("loss_total", suffix, sum(losses.values()), logits)
        if f"out.hook_grad_out{suffix}" in arrays:
            arrays.compare(f"out.hook_grad_out{suffix}", gradient, GRADIENT[dtype], overflow=overflow)
    logits = torch.from_numpy(arrays["in.logits_student"]).requires_grad_()
    for name, loss in raw_losses(method, logits, teacher.logits, target).items():
        if f"out.raw.{name}" in arrays:
            check(f"raw.{name}", "", loss, logits)
    return len(arrays.compared)


def raw_losses(method, logits_student, logits_teacher, target):
    """The loss functions of a method by their names in the vectors, without the run's weights and warm-up.

    The gradient of the official gkd function is scaled; those of DKD_GKD's three are not.
    """
    temperature = method.hyperparameters[method.temperature]
    if method.name != "DKD":
        logits = logits_student, logits_teacher
        for transform in method.transforms:
            logits = transform(*logits, Batch((), target, target))
        return {"gkd" if method.transforms else "kd": kd_loss(*logits, temperature)}
    return {
        "dkd": method.distillation_loss(logits_student, logits_teacher, target),
        "tckd": tckd_loss(logits_student, logits_teacher, target, temperature),
        "nckd": nckd_loss(logits_student, logits_teacher, target, temperature),
    }


def numbered_epochs(arrays):
    """The epochs in the names of arrays, NAME@epochE, in their order."""
    return sorted({int(name.partition("@epoch")[2]) for name in arrays if "@epoch" in name})


def reference_method(name, description, num_classes):
    """The method that a case describes, built as a run would build it."""
    keys = METHODS[name]
    hyperparameters = {key: value for key, value in description["hyperparameters"].items() if key != "hard_coded"}
    specification = specification_of({**keys, keys["DISTILLER.TYPE"]: hyperparameters})
    return build_method(specification, Context(num_classes))


def check_integration(description, arrays, method_name):
    """A whole student and teacher with filled weights: losses, logits and gradient norms per parameter."""
    if method_name not in METHODS:
        raise NotCovered(f"losses of {method_name}")
    student, teacher = (network(description[side], description[f"{side}_fill"]) for side in ("student", "teacher"))
    method = reference_method(method_name, description, num_classes=100)
    shape, stream = description["image"]["shape"], description["image"]["s"]
    images, target = filled_images(shape, stream), torch.tensor(description["target"])
    student.train(), teacher.eval()
    epochs, numbered = description["epochs"], numbered_epochs(arrays)
    if not (epochs == numbered if numbered else isinstance(epochs, list) and len(epochs) == 1):
        raise Unreadable(f"states epochs {epochs}, its arrays have {numbered or 'one'}")
    for epoch in map(int, epochs):
        suffix = f"@epoch{epoch}" if numbered else ""
        output = Output(*student(images))
        with torch.no_grad():
            soft = Output(*teacher(images))
        schedule = {name: torch.tensor(value, dtype=torch.float64) for name, value in method.schedule(epoch).items()}
        losses = method.losses(output, soft, Batch((images,), target, target), schedule)
        arrays.compare(f"out.logits_student{suffix}", output.logits, INTEGRATION)
        for name, loss in losses.items():
            arrays.compare(f"out.loss_{name}{suffix}", loss, INTEGRATION)
            gradients = torch.autograd.grad(loss, list(student.parameters()), retain_graph=True)
            norms = [gradient.norm().item() for gradient in gradients]
            arrays.compare(f"grad_l2.{name}{suffix}", norms, INTEGRATION_GRADIENT)
            sums = [gradient.sum().item() for gradient in gradients]
            arrays.compare(f"grad_sum.{name}{suffix}", sums, INTEGRATION_GRADIENT)
    return len(arrays.compared)


def check_structure(description):
    """State-dict keys in their order, shapes, number of parameters, feature shapes."""
    model = known_network(description["model_dict"], description["name"], description["num_classes"])
    expected = [(entry["key"], tuple(entry["shape"])) for entry in description["state_dict"]]
    actual = [(key, tuple(tensor.shape)) for key, tensor in model.state_dict().items()]
    if actual != expected:
        wrong = next(
            (pair for pair in zip(actual, expected, strict=False) if pair[0] != pair[1]),
            (len(actual), len(expected)),
        )
        raise Mismatch(f"state_dict: {wrong[0]}, reference {wrong[1]}")
    trainable = sum(parameter.numel() for parameter in model.parameters())
    compare("num_trainable_parameters", trainable, description["num_trainable_parameters"], (0.0, 0.0))
    features = model.eval()(torch.zeros(description["input_shape_used"]))[1]
    shapes = {k: [list(f.shape) for f in v] if isinstance(v, list) else list(v.shape) for k, v in features.items()}
    if shapes != description["feats_shapes"]:
        raise Mismatch(f"features: {shapes}, reference {description['feats_shapes']}")
    return len(expected)


def check_model(description, arrays):
    """Forward passes in evaluation and training mode, gradients, and the batch statistics after one forward."""
    known_network(description["model_dict"], description["name"])
    model = network(description["name"], description["fill"], description["model_dict"])
    images = filled_images(description["fill"]["input_shape"], description["fill"]["s"])
    for mode in ("eval", "train"):
        model.train(mode == "train")
        logits, features = model(images)
        arrays.compare(f"{mode}.logits", logits, MODEL)
        flat = {"pooled_feat": features["pooled_feat"]}
        flat |= {f"{kind}.{i}": f for kind in ("feats", "preact_feats") for i, f in enumerate(features[kind])}
        for name, feature in flat.items():
            stated = description[mode]["feats"][name]
            moments = [feature.mean(), feature.std(correction=0), feature.min(), feature.max()]
            compare(
                f"{mode}.{name}",
                torch.stack(moments),
                [stated[k] for k in ("mean", "std", "min", "max")],
                MODEL,
            )
            first = feature.contiguous().flatten()[:16]
            arrays.compare(f"{mode}.first16.{name}", first, MODEL)
    loss = F.cross_entropy(logits, torch.tensor(description["train"]["targets"]))
    compare("train.cross_entropy", loss, description["train"]["cross_entropy"], MODEL)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    arrays.compare("train.ce_grad_l2", torch.stack([g.norm() for g in gradients]), MODEL)
    arrays.compare("train.ce_grad_sum", torch.stack([g.sum() for g in gradients]), MODEL)
    state = model.state_dict()
    for kind in ("running_mean", "running_var", "num_batches_tracked"):
        sums = [tensor.sum().item() for key, tensor in state.items() if key.endswith(kind)]
        name = kind if kind == "num_batches_tracked" else f"{kind}_sum"
        arrays.compare(f"train.after.{name}", sums, MODEL)
    return len(arrays.compared)


def known_network(model_dict, name, num_classes=100):
    zoo = f"{model_dict}".removesuffix("_model_dict")
    fitting = (
        dataset for dataset, d in components.datasets().items() if (d["zoo"], d["num_classes"]) == (zoo, num_classes)
    )
    dataset = next(fitting, None)
    if name not in components.networks(dataset):
        raise NotCovered(f"network {name} of {model_dict}")
    return build_network(name, dataset)


def network(name, fill, model_dict="cifar_model_dict"):
    """The network in float64, its state filled by the rule of the reference vectors."""
    model = known_network(model_dict, name).double()
    state = model.state_dict()
    for i, (key, tensor) in enumerate(state.items()):
        r = noise(i, tensor.numel(), fill["s"]).reshape(tensor.shape)
        if key.endswith("num_batches_tracked"):
            r = np.zeros(tensor.shape)
        elif key.endswith("running_var"):
            r = 1 + 0.25 * r
        elif key.endswith(("running_mean", "bias")):
            r = 0.1 * r
        elif tensor.dim() == 1:
            r = fill["gamma_base"] + 0.2 * r
        else:
            r = np.sqrt(fill["gain"] / (tensor.numel() // tensor.shape[0])) * r
        tensor.copy_(torch.from_numpy(r))
    return model


def filled_images(shape, stream):
    pixels = noise(65536, int(np.prod(shape)), stream).reshape(shape)
    return torch.from_numpy(pixels + noise(65537, shape[0] * shape[1], stream).reshape(*shape[:2], 1, 1))


def noise(entry, number, stream):
    """r(i, j, s) of the fill rule for j < number: a hash of the position to numbers in (-1, 1)."""
    h = np.arange(number, dtype=np.uint64) * 2654435761 + entry * 2246822519 + stream * 3266489917 + 374761393
    mask = np.uint64(0xFFFFFFFF)
    h = h & mask
    h = ((h ^ (h >> np.uint64(15))) * np.uint64(2246822519)) & mask
    h = ((h ^ (h >> np.uint64(13))) * np.uint64(3266489917)) & mask
    h = h ^ (h >> np.uint64(16))
    return 2 * (h.astype(np.float64) + 0.5) / 2**32 - 1


# What vectors call the keys of a params file, and what in them is no setting.
SCHEDULE_KEYS = {"lr": "LR", "epochs": "EPOCHS", "decay_stages": "LR_DECAY_STAGES", "decay_rate": "LR_DECAY_RATE"}
SCHEDULE_FACTS = {"lr_per_epoch", "epochs_at_which_a_new_value_starts", "epoch_numbering"}
SCHEDULE_FACTS |= {"setting", "case", "split", "seed", "dtype", "format", "description", "notes", "origin", "torch"}
SGD_KEYS = {"lr": "LR", "momentum": "MOMENTUM", "weight_decay": "WEIGHT_DECAY"}
TRAINER_KEYS = {"base": SGD_KEYS, "dot": {**SGD_KEYS, "delta": "DOT.DELTA"}}
TRAINER_FACTS = {"momentum_task", "momentum_kd", "ce_weight", "kd_weight", "T", "decay_at", "no_step_kd"}


def solver_keys(settings, names, facts):
    """The configuration keys under SOLVER of a case's settings. Raises NotCovered for one that there is no key for."""
    for name, value in settings.items():
        if name not in (*names, *facts) and value not in (None, False, 0):
            raise NotCovered(f"setting {name} = {value}")
    return {f"SOLVER.{key}": settings[name] for name, key in names.items()}


def check_schedule(description):
    settings = {key: value for key, value in description.items() if not FAILURE.search(key)}
    keys = solver_keys(settings, SCHEDULE_KEYS, SCHEDULE_FACTS)
    schedule = specification_of({"DISTILLER.TYPE": "NONE", **keys})["schedule"]
    rates = [learning_rate(schedule, epoch) for epoch in range(1, description["epochs"] + 1)]
    compare("lr_per_epoch", rates, description["lr_per_epoch"], SCHEDULE)
    return 1


TRAINERS = {"torch.optim.SGD": "base", "DistillationOrientedTrainer": "dot"}  # by the first word
BUFFERS = {"momentum_buffer": "task", "momentum_kd_buffer": "distillation"}  # of DOT


def check_trainer(description, arrays):
    """Steps of a trainer, under given gradients or with a small network: parameters and buffers after each."""
    kind, settings = description["optimizer"].split()[0], description["hyperparameters"]
    if kind not in TRAINERS:
        raise NotCovered(f"optimizer {kind}")
    tolerance = OPTIMIZER[known_precision(description["dtype"])]
    keys = solver_keys(settings, TRAINER_KEYS[TRAINERS[kind]], TRAINER_FACTS)
    for name, sign in (("momentum_task", -1), ("momentum_kd", 1)):
        if name in settings and abs(settings["momentum"] + sign * settings["delta"] - settings[name]) > 1e-9:
            raise NotCovered(f"setting {name} = {settings[name]}")
    specification = specification_of({"DISTILLER.TYPE": "KD", "SOLVER.TRAINER": TRAINERS[kind], **keys})
    names = [name.removeprefix("param.") for name in arrays if name.startswith("param.")]
    parameters = {name: torch.nn.Parameter(torch.from_numpy(arrays[f"param.{name}"][0].copy())) for name in names}
    steps = len(arrays[f"param.{names[0]}"]) - 1 if names else 0
    if steps < 1:
        raise Unreadable("holds no step of a parameter")
    stated = description.get("steps", steps)
    if type(stated) is not int or stated != steps:
        raise Unreadable(f"states steps {stated!r}, its arrays hold {steps}")
    trainer = build_trainer(specification, list(parameters.values()))
    losses = _mlp_losses if description.get("kind") == "mlp" else _given_losses
    for step in range(steps):
        if "lr" in arrays:
            trainer.lr.fill_(float(arrays["lr"][step]))
        now = losses(arrays, step, parameters, settings)
        if losses is _mlp_losses:
            _check_gradients(arrays, step, parameters, now, tolerance)
        trainer.update(now)
        for i, (name, parameter) in enumerate(parameters.items()):
            arrays.compare(f"param.{name}", parameter, tolerance, step + 1)
            if kind == "torch.optim.SGD":
                arrays.compare(f"momentum_buffer.{name}", trainer.buffers[i], tolerance, step)
                continue
            for theirs, ours in BUFFERS.items():
                place, buffer = f"{theirs}.{name}", trainer.buffers[ours][i]
                stated = arrays[place][step + 1]
                if (buffer is not None) != arrays[f"has_{place}"][step + 1]:
                    there = "none" if buffer is None else "is there"
                    raise Mismatch(f"{place}[{step + 1}]: {there}, not so in the reference")
                if buffer is not None:
                    arrays.compare(place, buffer, tolerance, step + 1)
    states = ("param.", *(f"{has}{name}." for has in ("", "has_") for name in BUFFERS if kind != "torch.optim.SGD"))
    for name in arrays.read:
        number = steps + name.startswith(states)  # the state before the first step is there too
        if len(arrays[name]) != number:
            raise Unreadable(f"{name} holds {len(arrays[name])} entries, expected {number} for {steps} steps")
    return len(arrays.compared)


def _given_losses(arrays, step, parameters, settings):
    """Losses whose gradients are those that a case states."""
    losses = {"ce": torch.zeros(()), "kd": torch.zeros(())}
    halves = {"ce": "grad_task", "kd": "grad_kd"} if any(name.startswith("has_") for name in arrays) else {"ce": "grad"}
    for loss, kind in halves.items():
        for name, parameter in parameters.items():
            gradient, has = torch.from_numpy(arrays[f"{kind}.{name}"][step]), f"has_{kind}.{name}"
            if has not in arrays or arrays[has][step]:
                losses[loss] = losses[loss] + (parameter * gradient).sum()
    return losses


def _mlp_losses(arrays, step, parameters, settings):
    """Cross entropy and KD of the two-layer network that a case describes."""
    x, y, soft = (torch.from_numpy(arrays[f"in.{name}"][step]) for name in ("x", "y", "teacher_logits"))
    hidden = F.relu(F.linear(x, parameters["w1"], parameters["b1"]))
    logits = F.linear(hidden, parameters["w2"], parameters["b2"])
    return {
        "ce": settings["ce_weight"] * F.cross_entropy(logits, y),
        "kd": settings["kd_weight"] * kd_loss(logits, soft, settings["T"]),
    }


def _check_gradients(arrays, step, parameters, losses, tolerance):
    """The losses of a step of a network, and their gradients."""
    for name, half in {"ce": "task", "kd": "kd"}.items():
        arrays.compare(f"out.loss_{name}", losses[name], tolerance, step)
        gradients = torch.autograd.grad(losses[name], list(parameters.values()), retain_graph=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            place = f"grad_{half}.{parameter}"
            if not arrays[f"has_{place}"][step]:
                raise Mismatch(f"{place}[{step}]: is there, not so in the reference")
            arrays.compare(place, gradient, tolerance, step)

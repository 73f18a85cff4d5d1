"""Networks with filled weights: structure, forward passes, gradients, running statistics."""

import numpy as np
import torch
import torch.nn.functional as F

from distillbench.checks.parity.cases import Mismatch, NotCovered, compare
from distillbench.config import components
from distillbench.models import build_network

MODEL = (1e-8, 1e-10)


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
    features, stated = model.eval()(torch.zeros(description["input_shape_used"]))[1], description["feats_shapes"]
    published = {name: feature for name, feature in features.items() if name in stated}
    shapes = {k: [list(f.shape) for f in v] if isinstance(v, list) else list(v.shape) for k, v in published.items()}
    if shapes != stated:
        raise Mismatch(f"features: {shapes}, reference {stated}")
    return len(expected)


def check_model(description, arrays):
    """Forward passes in evaluation and training mode, gradients, and the batch statistics after one forward."""
    num_classes = arrays["eval.logits"].shape[1]
    model = network(description["name"], description["fill"], description["model_dict"], num_classes)
    images = filled_images(description["fill"]["input_shape"], description["fill"]["s"])
    for mode in ("eval", "train"):
        model.train(mode == "train")
        logits, features = model(images)
        arrays.compare(f"{mode}.logits", logits, MODEL)
        flat = {"pooled_feat": features["pooled_feat"]}
        flat |= {f"{kind}.{i}": f for kind in ("feats", "preact_feats") for i, f in enumerate(features[kind])}
        for name, stated in description[mode]["feats"].items():
            if name not in flat:
                raise Mismatch(f"features: there is no {name}")
            feature = flat[name]
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


def known_network(model_dict, name, num_classes):
    zoo = f"{model_dict}".removesuffix("_model_dict")
    fitting = (
        dataset for dataset, d in components.datasets().items() if (d["zoo"], d["num_classes"]) == (zoo, num_classes)
    )
    dataset = next(fitting, None)
    if name not in components.networks(dataset):
        raise NotCovered(f"network {name} of {model_dict}")
    return build_network(name, dataset)


def network(name, rule, model_dict="cifar_model_dict", num_classes=100):
    """The network in float64, its state filled by the rule of the reference vectors."""
    model = known_network(model_dict, name, num_classes).double()
    fill(model, rule)
    return model


def fill(module, rule):
    """Fill the state of a module in float64 by the rule of the reference vectors.

    rule: its constants; where it lists the entries that are filled, the others stay.
    """
    state = module.state_dict()
    entries = rule.get("entries_in_order", [{"index": i, "key": key} for i, key in enumerate(state)])
    for entry in entries:
        key, kind = entry["key"], entry.get("kind")
        if kind == "untouched":
            continue
        if key not in state:
            raise Mismatch(f"modules: no {key}")
        tensor = state[key]
        r = noise(entry["index"], tensor.numel(), rule["s"]).reshape(tensor.shape)
        if key.endswith("num_batches_tracked"):
            r = np.zeros(tensor.shape)
        elif key.endswith("running_var"):
            r = 1 + 0.25 * r
        elif key.endswith(("running_mean", "bias")):
            r = 0.1 * r
        elif kind == "memory":
            r = r / np.sqrt(tensor.shape[1] / 3)
        elif tensor.dim() == 1:
            r = rule["gamma_base"] + 0.2 * r
        else:
            r = np.sqrt(rule["gain"] / (tensor.numel() // tensor.shape[0])) * r
        tensor.copy_(torch.from_numpy(r))


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

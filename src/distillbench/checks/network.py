"""What every network in a file of the user's own has to keep: `distillbench check FILE` and the tests run it."""

import torch

from distillbench.checks import method
from distillbench.checks.method import Broken, learner, try_rules
from distillbench.config import components
from distillbench.engine.streams import initialisation
from distillbench.engine.weights import weights_digest
from distillbench.methods.base import Output
from distillbench.methods.dry_pass import bn_before_relu, shapes
from distillbench.models import build_network

NUM_IMAGES = 16  # of a batch


def check_networks(dataset, report=print):
    """Try every rule on the user's own networks, with images of a dataset's shape; returns the number broken.

    Says before what of the features a network has. Raises UserError where one cannot be built.
    """
    cases = {}
    for name in components.own_networks:
        report(described(name, dataset))
        cases[name] = {"DISTILLER.TYPE": "NONE", "DATASET.TYPE": dataset, "DISTILLER.STUDENT": name}
    return try_rules(RULES, cases, report)


def described(name, dataset):
    """A line on the features of a network: channels@height of its maps, channels of the pooled ones, what it lacks."""
    output = shapes(build_network(name, dataset), components.datasets()[dataset]["image_size"])
    facts = []
    if "feats" in output.features:
        facts.append("maps " + " ".join(f"{map.shape[1]}@{map.shape[2]}" for map in output.maps()))
    if "pooled_feat" in output.features:
        facts.append(f"pooled {output.pooled.shape[1]}")
    facts += [f"no {feature}: {reason}" for feature, reason in getattr(output.features, "lacking", {}).items()]
    return f"{name} on {dataset}: {'; '.join(facts)}"


def _built(keys, seed=0):
    with initialisation(seed, "student"):
        return build_network(keys["DISTILLER.STUDENT"], keys["DATASET.TYPE"]).double()


def _image_size(keys):
    return components.datasets()[keys["DATASET.TYPE"]]["image_size"]


def gives_its_features(keys):
    """maps of stem and stages get no larger, as many before their ReLU as behind it; the pooled features are [N, D]"""
    network, size = _built(keys), _image_size(keys)
    output = Output(*network.eval()(torch.rand(2, 3, size, size).double()))
    if "feats" in output.features:
        maps = output.maps()
        if any(map.dim() != 4 for map in maps) or len(maps) < 2:
            raise Broken("`feats` must be maps [N, D, H, W] of a stem and of stages")
        heights = [map.shape[2] for map in maps]
        if heights != sorted(heights, reverse=True):
            raise Broken(f"the heights of `feats` are {heights}; name the stages from the first to the deepest")
        if "preact_feats" in output.features and [m.shape for m in output.maps("preact_feats")] != [
            m.shape for m in maps
        ]:
            raise Broken("`preact_feats` must be maps of the shapes of `feats`")
    if "pooled_feat" in output.features and output.pooled.shape[0] != 2:
        raise Broken(f"`pooled_feat` is {list(output.features['pooled_feat'].shape)} of two images, not [2, D]")


def stays_what_it_is_when_looked_at(keys):
    """looking for shapes and batch normalisations moves nothing, and leaves no hook behind"""
    network, size = _built(keys), _image_size(keys)
    before = weights_digest(network.state_dict())
    output = shapes(network, size)
    if "preact_feats" in output.features:
        bn_before_relu(network, size)
    if weights_digest(network.state_dict()) != before or not network.training:
        raise Broken("a pass in evaluation mode changes it; write to no buffer there")


def every_parameter_has_a_gradient(keys):
    """the gradient of the cross entropy reaches every parameter"""
    built = learner(keys)
    *_, losses = built.method(*built.callables, built.feed.batch(NUM_IMAGES), built.schedule)
    named = {name: p for name, p in built.student.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(losses["ce"], list(named.values()), allow_unused=True)
    without = [name for name, gradient in zip(named, gradients, strict=True) if gradient is None]
    if without:
        raise Broken(f"{', '.join(without[:3])} has none; use it in the logits or do not register it")


def starts_from_its_seed(keys):
    """one seed gives the same first weights, another seed others"""
    first, again, other = (weights_digest(_built(keys, seed).state_dict()) for seed in (0, 0, 1))
    if first != again:
        raise Broken("two networks of one seed differ; draw weights from torch's global generator alone")
    if first == other:
        raise Broken("networks of two seeds are the same; draw the weights, load none")


RULES = (gives_its_features, stays_what_it_is_when_looked_at, every_parameter_has_a_gradient, starts_from_its_seed)
RULES += (method.waits_for_no_device, method.is_a_function_of_the_seed, method.resumes, method.can_be_replayed)
RULES += (method.leaves_what_can_be_loaded, method.learns)

"""Networks that give logits alone: their features are outputs of their modules, seen by hooks."""

import copy

import torch

from distillbench.errors import UserError
from distillbench.models.maps import Search, traced


class Features(dict):
    """mdistiller's dictionary of features; asked for what the network cannot give, it raises UserError with the reason.

    name: of the network; lacking: {feature: why it is not there}.
    """

    def __init__(self, name, lacking, features):
        super().__init__(features)
        self.name, self.lacking = name, lacking

    def __missing__(self, feature):
        if feature not in self.lacking:
            raise KeyError(feature)
        raise UserError(f"{self.name} has no {feature}: {self.lacking[feature]}; choose another network or method")


def with_features(network, name, image_size, num_classes, **named):
    """The network itself, whose forward gives (logits, features) from now on; its state dict stays what it was.

    name: for messages; image_size: height and width of an image; num_classes: of its logits; named: `stages`, `stem`,
    `head` of `maps.Search.plan`. A network that gives features itself gives them as before. Else they are looked for in
    passes over two blank images through copies of the network. Its attribute `draws_in_training` says whether it draws
    random numbers there (dropout, stochastic depth).
    Raises UserError, one line, for a network that cannot take the images, gives something else than logits, or draws
    random numbers in evaluation, and as `maps.Search.plan`.
    """
    for module in network.modules():
        if getattr(module, "inplace", False) is True:  # it would write into the output of the module before it
            module.inplace = False
    *training, network.draws_in_training = _pass(network, name, image_size, training=True)
    *evaluation, draws = _pass(network, name, image_size, training=False)
    if draws:
        problem = "draws random numbers in evaluation mode: its accuracy would not be a function of its weights"
        raise UserError(f"{name}: {problem}; write a network that draws in training alone")
    outputs = [output for _, output in (training, evaluation)]
    published = all(isinstance(output, tuple) and isinstance(output[-1], dict) for output in outputs)
    for output in outputs:
        _require_logits(output[0] if published else output, name, num_classes)
    if published:
        _require_features(outputs[0][1], name)
        return network
    plan = Search(network, name, *training).plan(**named)
    if not {place[:2] for place in plan.places} <= {call[:2] for call in evaluation[0]}:
        raise UserError(f"{name}: calls other modules in evaluation than in training; write a network that does not")
    kind = type(network)
    network.__class__ = type(kind.__name__, (_Hooked, kind), {"plan": plan, "network_name": name})
    return network


class _Hooked:
    """In front of a network's own class: hooks for the time of a forward, so that none stays in the network."""

    def forward(self, images):
        with traced(self, {module for module, *_ in self.plan.places}) as calls:
            logits = super().forward(images)
        seen = {(call.module, call.number): call for call in calls}

        def tensor(place):
            *call, side = place
            return getattr(seen[tuple(call)], side)

        plan = self.plan
        found = {"feats": list(map(tensor, plan.maps)), "preact_feats": list(map(tensor, plan.preacts))}
        if plan.pooled:
            found["pooled_feat"] = tensor(plan.pooled)
        found = {feature: value for feature, value in found.items() if feature not in plan.lacking}
        return logits, Features(self.network_name, plan.lacking, found)


@torch.inference_mode(False)
@torch.enable_grad()
def _pass(network, name, image_size, training):
    """([`Call`], output, whether it draws random numbers) of a copy of the network, in training or evaluation mode."""
    tried, weight = copy.deepcopy(network).train(training), next(network.parameters(), None)
    if weight is None:
        raise UserError(f"{name}: has no parameters; there is nothing to train")
    images, state = weight.new_zeros(2, 3, image_size, image_size), torch.get_rng_state()
    try:
        with traced(tried) as calls:
            output = tried(images)
    except Exception as error:  # whatever the network's code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        what = f"cannot take images of {image_size}x{image_size}"
        raise UserError(f"{name}: {what} ({reason:.300}); choose another dataset or network") from None
    draws = not torch.equal(state, torch.get_rng_state())
    torch.set_rng_state(state)
    return calls, output, draws


def _require_logits(output, name, num_classes):
    if not isinstance(output, torch.Tensor) or output.shape != (2, num_classes):
        shape = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        problem = f"gives {shape} for two images, not logits [2, {num_classes}]"
        raise UserError(f"{name}: {problem}; write a network of your own that returns its logits alone")


def _require_features(features, name):
    if missing := {"feats", "preact_feats", "pooled_feat"} - features.keys():
        raise UserError(f"{name}: gives features without {min(missing)}; add it, or return the logits alone")

"""Where in a network its features are: which calls of its modules have the maps of stem and stages and the pooled ones.

The maps are those of the modules that the network's file names, or else, as far as they are of more than one pixel:

- the stem: what is there before the second convolution, of the shape of the first one's output;
- of each size what goes into the largest module that makes the next smaller size of it, and of the last size what an
  outermost module gives last, but for what a pooling gives.

The pooled features are the input of the last linear layer that gives [N, C].
"""

from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn as nn

from distillbench.errors import UserError, one_of

RELUS = (nn.ReLU, nn.ReLU6)
RELU_NODES = ("ReluBackward0", "HardtanhBackward0")  # of the autograd graph
POOLINGS = nn.MaxPool2d.__module__


class Call(NamedTuple):
    """One call of a module in a pass. number: of the module's calls, from 0 on; input: its first."""

    module: str
    number: int
    input: object
    output: object
    version: int  # of the output; it rises when something is written into it

    def place(self, side):
        return self.module, self.number, side


class Plan(NamedTuple):
    """Where the features are in every pass, each a (module, number of its call, "input" or "output").

    maps, preacts: of stem and stages, and the same before their ReLU; pooled: or None; lacking: {feature: why it is not
    there}.
    """

    maps: list
    preacts: list
    pooled: tuple | None
    lacking: dict

    @property
    def places(self):
        return {place for place in (*self.maps, *self.preacts, self.pooled) if place}


@contextmanager
def traced(network, names=None):
    """Inside, calls of modules of these names (default: of all) are put into a list of `Call`, as they return."""
    calls, counts = [], {}

    def hook(name):
        def note(module, inputs, output):
            number = counts[name] = counts.get(name, -1) + 1
            version = output._version if isinstance(output, torch.Tensor) and not output.is_inference() else 0
            calls.append(Call(name, number, inputs[0] if inputs else None, output, version))

        return note

    modules = ((name, module) for name, module in network.named_modules() if name)
    hooks = [module.register_forward_hook(hook(name)) for name, module in modules if names is None or name in names]
    try:
        yield calls
    finally:
        for handle in hooks:
            handle.remove()


class Search:
    """The `Plan` of a network from one pass; what its file names is found, or UserError raised.

    name: of the network, for messages; calls: of `traced`, in training mode and with gradient; logits: what the pass
    gave.
    """

    def __init__(self, network, name, calls, logits):
        self.modules, self.name, self.calls, self.logits = dict(network.named_modules()), name, calls, logits
        self.convolutions = [i for i, call in enumerate(calls) if isinstance(self.modules[call.module], nn.Conv2d)]

    def plan(self, stages=(), stem=None, head=None):
        begin = self.named(stem, "stem") if stem else self.stem()
        behind = [self.named(stage, "stages") for stage in stages] if stages else self.by_size()
        maps = list(dict.fromkeys(filter(None, (begin, *behind))))
        classifier, lacking = self.classifier(head), {}
        if not begin or len(maps) < 2:
            lacking = dict.fromkeys(("feats", "preact_feats"), "it has no maps [N, D, H, W] behind a stem")
        for place in maps:
            lacking = self.problems(place) | lacking
        if not classifier:
            lacking["pooled_feat"] = "no linear layer gives its logits"
        return Plan(maps, list(map(self.before_relu, maps)), classifier and classifier.place("input"), lacking)

    def stem(self):
        """The place of the stem's map; None without one."""
        if not self.convolutions:
            return None
        first, second = (self.convolutions + [len(self.calls)])[:2]
        shape = self.calls[first].output.shape
        found = [call for call in self.calls[first:second] if _size(call.output) and call.output.shape == shape]
        return found and self.source(found[-1])

    def by_size(self):
        """The places of a map of each size, as long as they get smaller."""
        found, size, begin = [], None, next(iter(self.convolutions), 0)
        for i, call in enumerate(self.calls[begin:], begin):
            now = _size(call.output)
            if now and size and now < size:
                found.append(self.in_front(i, size, now))
            size = min(filter(None, (size, now)), default=None)
        last = [call for call in self.calls if size and _size(call.output) == size]
        last.sort(key=lambda call: -call.module.count("."))  # the outermost last, else as they were
        found += [place for place in map(self.source, last) if not self.pools(place)][-1:]
        return [place for place in found if not self.pools(place)]

    def in_front(self, i, size, smaller):
        """The place of what goes into the largest module that turns maps of a size into the smaller ones of call i."""
        parts = self.calls[i].module.split(".")
        for name in (".".join(parts[:end]) for end in range(1, len(parts) + 1)):
            call = next((call for call in self.calls[i:] if call.module == name), None)
            if call and (_size(call.input), _size(call.output)) == (size, smaller):
                return self.source(call, "input")
        return self.source([call for call in self.calls[:i] if _size(call.output) == size][-1])

    def source(self, call, side="output"):
        """Where a tensor that goes into or out of a call is first seen: of a block's output, in its last module, unless
        the block adds its shortcut to what that gives in place.
        """
        tensor = getattr(call, side)
        found = [other for other in self.calls if other.output is tensor]
        found = [other for other in found if other.version == tensor._version] or found
        return found[0].place("output") if found else call.place(side)

    def pools(self, place):
        module, _, side = place
        return side == "output" and any(kind.__module__ == POOLINGS for kind in type(self.modules[module]).__mro__)

    def before_relu(self, place):
        """The place of the input, where a place is the output of a ReLU."""
        module, number, side = place
        return (module, number, "input") if side == "output" and isinstance(self.modules[module], RELUS) else place

    def problems(self, place):
        """{feature: why it is not there} of a map that the pass changes, or whose ReLU is not seen."""
        *call, side = place
        call = next(other for other in self.calls if [other.module, other.number] == call)
        tensor = getattr(call, side)
        made_by_relu = tensor.grad_fn is not None and tensor.grad_fn.name() in RELU_NODES
        if side == "output" and tensor._version != call.version and not made_by_relu:
            return dict.fromkeys(("feats", "preact_feats"), self.overwritten(call))
        if self.before_relu(place) == place and made_by_relu:
            where = f"the ReLU {'at the end of' if side == 'output' else 'in front of'} {call.module}"
            return {"preact_feats": f"{where} is no module, so that its input is not seen"}
        return {}

    def overwritten(self, call):
        return f"what {call.module} gives is overwritten later (write x = x + y in place of x += y)"

    def named(self, module, field):
        """The place of the map of a module which the network's file names."""
        self.require_module(module, field)
        found = [call for call in self.calls if call.module == module]
        if not found or not isinstance(found[-1].output, torch.Tensor) or found[-1].output.dim() != 4:
            problem = "gives no map [N, D, H, W]" if found else "is never called"
            raise UserError(f"{self.name}: {field}: {module} {problem}; name another module")
        if found[-1].output._version != found[-1].version:
            raise UserError(f"{self.name}: {field}: {self.overwritten(found[-1])}")
        return self.source(found[-1])

    def classifier(self, head):
        """The call of the classifier; None where no linear layer gives the logits."""
        if head:
            self.require_module(head, "head")
        kind = nn.Module if head else nn.Linear
        found = [call for call in self.calls if isinstance(self.modules[call.module], kind) and self.gives_logits(call)]
        found = [call for call in found if head in (None, call.module)]
        if head and not found:
            problem = f"{head} gives no logits {list(self.logits.shape)} of two images"
            raise UserError(f"{self.name}: head: {problem}; name another module")
        return found[-1] if found else None

    def gives_logits(self, call):
        return isinstance(call.output, torch.Tensor) and call.output.shape == self.logits.shape

    def require_module(self, module, field):
        known = self.modules.keys() - {""}
        if module not in known:
            raise UserError(f"{self.name}: {field}: {one_of(module, known, 'module')}")


def _size(value):
    """Height and width of maps [N, D, H, H] of more than one pixel; None of anything else."""
    is_map = isinstance(value, torch.Tensor) and value.dim() == 4 and 1 < value.shape[2] == value.shape[3]
    return value.shape[2] if is_map else None

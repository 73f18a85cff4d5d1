"""What optimizers share: who moves, and what is kept between steps."""

import torch


class Optimizer:
    """A step of an update. Subclasses declare `name`, `version` and the keys of SOLVER that they read, and have `step`.

    state: {name: [a tensor for each parameter]}, written in place; from the beginning on no tensor moves.
    """

    keys = {}

    def __init__(self, parameters, **kept):
        """parameters: of one dtype and device; kept: name in `state` = the function that makes a parameter's tensor."""
        self.parameters = parameters
        self.state = {name: list(map(make, parameters)) for name, make in kept.items()}

    @torch.no_grad()
    def descend(self, gradients, lr):
        """Move each parameter that has a gradient; the others, for which there is None, rest. lr: 0-d tensor."""
        here = [i for i, gradient in enumerate(gradients) if gradient is not None]
        if here:
            lists = {"parameters": self.parameters, "gradients": gradients, **self.state}
            self.step(lr=lr, **{name: [tensors[i] for i in here] for name, tensors in lists.items()})

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        for name, tensors in self.state.items():
            for tensor, saved in zip(tensors, state[name], strict=True):
                tensor.copy_(saved)

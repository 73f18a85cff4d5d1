"""Networks of other libraries, `torchvision:resnet18`: built with no weights but those that are drawn here."""

import warnings

from distillbench.errors import UserError


def library_network(name, num_classes):
    """The network of a library with a classifier for these classes. Raises UserError where the library refuses that."""
    library, _, network = name.partition(":")
    try:
        with warnings.catch_warnings(action="ignore"):  # on how its weights are drawn in the next version
            return BUILDERS[library](network, num_classes)
    except Exception as error:  # whatever the library raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{name}: cannot be built for {num_classes} classes ({reason:.300})") from None


def _torchvision(name, num_classes):
    from torchvision.models import get_model

    return get_model(name, weights=None, num_classes=num_classes)


def _timm(name, num_classes):
    from timm import create_model

    return create_model(name, pretrained=False, num_classes=num_classes)


BUILDERS = {"torchvision": _torchvision, "timm": _timm}

"""Networks of other libraries, `torchvision:resnet18`: which there are, without importing the library.

Both libraries register what makes a network: a function below `@register_model`, in a file of the folder models/.
"""

import difflib
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from distillbench.errors import UserError, one_of

LIBRARIES = {"torchvision": "torchvision", "timm": "distillbench[timm]"}  # what to install
REGISTERED = re.compile(r"^@register_model\b.*?^def (\w+)", re.MULTILINE | re.DOTALL)


def library_network(name):
    """The declaration of a network of a library: its version is that of the library.

    Raises UserError, which names no place, where the library or the network is not there.
    """
    library, _, network = name.partition(":")
    if library not in LIBRARIES:
        raise UserError(f"{name}: {one_of(library, LIBRARIES, 'library')}")
    try:
        installed = version(library).partition("+")[0]  # not what its build was made for
    except PackageNotFoundError:
        raise UserError(f"{name}: {library} is not installed; `pip install '{LIBRARIES[library]}'`") from None
    if network not in registered(library):
        near = difflib.get_close_matches(network, registered(library), n=3)
        hint = f"near: {', '.join(f'{library}:{other}' for other in near)}; " if near else ""
        raise UserError(f"{name}: {library} {installed} has no such network; {hint}its list_models() names all")
    return {"name": network, "library": library, "version": installed, "arguments": {}, "bibtex": ""}


@cache
def registered(library):
    """The names of the networks that an installed library registers for the classification of images."""
    (folder,) = find_spec(library).submodule_search_locations
    texts = (path.read_text(encoding="utf-8") for path in Path(folder, "models").glob("*.py"))
    return sorted({name for text in texts for name in REGISTERED.findall(text)})

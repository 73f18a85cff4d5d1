"""Which figures a suite has: known from its specifications, before anything is trained."""

from pathlib import Path

from distillbench.config import components
from distillbench.errors import UserError

FIGURES = Path(__file__).parent / "figures"


def figure_names(suite):
    """The figures that a suite's rows give something to show, by their file's name."""
    return figures_of([cell.specification for cell in suite.cells], any(cell.control for cell in suite.cells))


def figures_of(specifications, compared):
    """The names of the figures that runs give something to show. compared: whether any row has a control."""
    methods, names = components.methods(), ["accuracy", "curves"]
    if compared:
        names.append("differences")
    transforms = [declared for specification in specifications for declared in specification.transforms.values()]
    for declared in transforms:
        if (name := declared["figure"]) and name not in names:
            if not (FIGURES / f"{name}.py").exists():
                raise UserError(f"{declared['path']}: figure: there is no {name}.py in reporting/figures")
            names.append(name)
    if any(methods.get(specification["method"]["name"], {}).get("temperature") for specification in specifications):
        names.append("gradients")
    return names

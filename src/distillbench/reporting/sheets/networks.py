"""The networks that there are, and what they cost."""

from distillbench.config import components
from distillbench.methods.dry_pass import shapes
from distillbench.models import build_network, network_cost
from distillbench.reporting.evidence import citation
from distillbench.reporting.sheet import Cell, Column, Count, Line, Number, Sheet, Text

LEGEND = "Maps: channels@height of the stem and of each stage. Multiply-adds of one image: convolutions, linear layers."
COLUMNS = (
    Column("dataset", "dataset"),
    Column("network", "network"),
    Column("parameters", "parameters", unit="M", align="right"),
    Column("multiply_adds", "multiply-adds", unit="M", align="right", form=".1f"),
    Column("maps", "maps"),
    Column("pooled", "pooled", align="right"),
    Column("source", "source"),
)


def networks_sheet(dataset=None):
    """The `sheet.Sheet` of the networks of a dataset; by default of one dataset of each zoo, that of most classes."""
    datasets = sorted(components.packaged("dataset").items(), key=lambda item: (item[1]["num_classes"], item[0]))
    largest = {declared["zoo"]: name for name, declared in datasets}
    legend = LEGEND
    if dataset is None:
        for zoo, name in largest.items():
            others = [other for other, declared in datasets if declared["zoo"] == zoo and other != name]
            legend += f"\nFor {' and '.join(others)}: those of {name}." if others else ""
    shown = [dataset] if dataset else largest.values()
    lines = (Line(tuple(map(Cell, _values(name, network)))) for name in shown for network in components.networks(name))
    return Sheet("networks", "", "Networks", COLUMNS, tuple(lines), legend)


def _values(dataset, network):
    built, size = build_network(network, dataset), components.datasets()[dataset]["image_size"]
    parameters, multiply_adds = network_cost(built, size)
    output = shapes(built, size)
    maps = " ".join(f"{map.shape[1]}@{map.shape[2]}" for map in output.maps())
    source = citation(components.networks(dataset)[network]["bibtex"])
    costs = Number(parameters / 1e6), Number(multiply_adds / 1e6)
    return (Text(dataset), Text(network), *costs, Text(maps), Count(output.pooled.shape[1]), Text(source))

"""The networks that there are, and what they cost."""

from distillbench.config import components
from distillbench.config.suite_sections import read_sections
from distillbench.methods.dry_pass import shapes
from distillbench.models import build_network, network_cost
from distillbench.reporting.evidence import NO_REFERENCE, citation
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
    return _sheet([(name, network) for name in shown for network in components.networks(name)], legend)


def networks_sheet_of(suite):
    """The same of the networks of a suite's pairs."""
    sections = read_sections(suite)
    names = dict.fromkeys(name for pair in sections.pairs for name in (pair.teacher, pair.student))
    return _sheet([(sections.dataset, name) for name in names], LEGEND)


def _sheet(networks, legend):
    lines = (Line(tuple(map(Cell, _values(*place)))) for place in networks)
    return Sheet("networks", "", "Networks", COLUMNS, tuple(lines), legend)


def _values(dataset, network):
    built, size = build_network(network, dataset), components.datasets()[dataset]["image_size"]
    parameters, multiply_adds = network_cost(built, size)
    output = shapes(built, size)
    maps = " ".join(f"{map.shape[1]}@{map.shape[2]}" for map in output.maps()) if "feats" in output.features else "none"
    pooled = Count(output.pooled.shape[1]) if "pooled_feat" in output.features else Text("none")
    declared = components.network(network, dataset)
    source = f"{network.partition(':')[0]} {declared['version']}" if "library" in declared else declared.get("file")
    costs = Number(parameters / 1e6), Number(multiply_adds / 1e6)
    cited = citation(declared["bibtex"]) if declared["bibtex"] else source or NO_REFERENCE
    return (Text(dataset), Text(network), *costs, Text(maps), pooled, Text(cited))

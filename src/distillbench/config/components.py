"""The registry of components: what methods, trainers, optimizers, transforms, datasets, networks, tasks declare, and
their code.

Declarations are literals in the component's own file (`name = "KD"`, `keys = {"TEMPERATURE": Key(4.0, ...)}`).
Planning a suite must not import torch, so they are read from the syntax tree: the file is parsed, never
executed. Adding a component is adding a file to its kind's folder, or to a folder below it.
"""

from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from itertools import chain
from pathlib import Path

from distillbench.config import dataset_files
from distillbench.config.declarations import read_declaration
from distillbench.config.kinds import KINDS
from distillbench.config.libraries import library_network
from distillbench.errors import UserError, one_of

PACKAGE = Path(__file__).resolve().parents[1]
own_methods, own_networks = {}, {}  # in files of the user's own, by name; see config/own_files.py


# What is declared


@cache
def packaged(what):
    """{name: declaration} of every component of a kind in the package; what: of `KINDS`."""
    return _by_name(_declarations(what))


def _declarations(what):
    """The declarations of a kind, in the order of their files. A file that declares nothing is no component."""
    folder = PACKAGE / KINDS[what].folder
    for path in sorted(folder.rglob("*.py")):
        *folders, stem = path.relative_to(folder).with_suffix("").parts
        module = ".".join(folders if stem == "__init__" else [*folders, stem])
        if declared := read_declaration(path, KINDS[what], module, optional=True):
            yield declared


def _by_name(declarations, field="name"):
    """{name: declaration}. Raises UserError, naming both files, if two have one name, or one value of another field."""
    found = {}
    for declared in declarations:
        other, path = found.setdefault(declared[field], declared), declared["path"]
        if other is not declared:
            raise UserError(f"{path}: the {field} {declared[field]} is declared in {other['path']} too; choose another")
    return found


def methods():
    """{name: {version, keys, node, teacher, views, temperature, ...}} of every method, by its `DISTILLER.TYPE`."""
    return {**packaged_methods(), **own_methods}


@cache
def packaged_methods():
    require_one_key_a_name()
    return packaged("method")


def require_one_key_a_name(*own):
    """Raise UserError, naming both files, where two components declare a key of one name in one node differently.

    own: declarations of methods beside the package's components.
    """
    first = {}
    kinds = (packaged(kind).values() for kind in ("method", "trainer", "transform", "optimizer"))
    for declared in (*chain(*kinds), *own):
        for name, key in declared["keys"].items():
            key_name = f"{declared['node']}.{name}"
            other = first.setdefault(key_name, declared)
            if other["keys"][name] != key:
                remedy = "write the same Key(...) in both"
                raise UserError(f"{declared['path']}: {key_name} is another key in {other['path']}; {remedy}")


def trainers():
    """{name: {version, version_without_margin, node, keys, label, two_losses, margin, solver}} of every trainer."""
    return packaged("trainer")


def optimizers():
    """{name: {version, node, keys, bibtex}} of every optimizer, by its `SOLVER.TYPE`."""
    return packaged("optimizer")


def trainer_version(name, parameters, schedule):
    """The version of a trainer's code at these values; one whose margin takes all the momentum may have another.

    parameters, schedule: as in a specification, {"DELTA": 0.075} and {"MOMENTUM": 0.9, ...}.
    """
    declared = trainers()[name]
    spent = declared["margin"] and parameters[declared["margin"]] == schedule["MOMENTUM"]
    return (spent and declared["version_without_margin"]) or declared["version"]


@cache
def transforms():
    """{name: {version, place, node, keys, label, figure, aliases}} of every transform, in the order of application."""
    _by_name(packaged("transform").values(), "place")
    _by_name(packaged("transform").values(), "order")
    nodes = {d["node"]: d["path"] for kind in ("method", "trainer") for d in packaged(kind).values()}
    for declared in packaged("transform").values():
        if declared["node"] in nodes:
            where = f"{declared['path']}: the node {declared['node']}"
            raise UserError(
                f"{where} is that of {nodes[declared['node']]}, whose rows it would switch on; choose another"
            )
    return dict(sorted(packaged("transform").items(), key=lambda item: item[1]["order"]))


@cache
def aliases():
    """{name: {method, transform, defaults, keys}} of the names that a method with a transform has elsewhere."""
    found = {}
    for declared in transforms().values():
        for name, alias in declared["aliases"].items():
            where, method = f"{declared['path']}: aliases: {name}", packaged_methods().get(alias["method"])
            if name in {**found, **packaged_methods()}:
                raise UserError(f"{where}: the name is taken; choose another")
            if not method or not alias["keys"].keys() <= method["keys"].keys():
                raise UserError(f"{where}: must stand for a method that there is, with keys that this has")
            found[name] = {**alias, "transform": declared["name"]}
    return found


@cache
def datasets():
    """{name: {version, zoo, num_classes, image_size, augmentation, ...}} of every dataset, one's own included."""
    return {**packaged("dataset"), **dataset_files.read_all(packaged("dataset"))}


def tasks():
    """{name: {version, headline}} of every task."""
    return packaged("task")


@cache
def zoos():
    """{zoo: {network: {family, module, version, arguments, bibtex}}}.

    A zoo is a folder of models/, its files are families, which declare `networks = {name: arguments}`. Two zoos may
    have different networks of one name.
    """
    families = {}
    for family in _declarations("family"):
        zoo, dot, _ = family["module"].partition(".")
        if not dot:
            raise UserError(f"{family['path']}: belongs to no zoo; move it into a folder, e.g. models/cifar")
        families.setdefault(zoo, []).append(family)
    return {zoo: members(_by_name(found).values()) for zoo, found in families.items()}


def members(families):
    """{network: declaration} of the networks of families, each with what its family declares for all."""
    return _by_name(
        {**family, "name": network, "family": family["name"], "arguments": arguments}
        for family in families
        for network, arguments in family["networks"].items()
    )


def networks(dataset):
    """{network: {family, module, version, arguments, bibtex}} for a dataset of a name, the user's own among them."""
    return {**zoos().get(datasets().get(dataset, {}).get("zoo"), {}), **own_networks}


def network(name, dataset):
    """The declaration of a network for a dataset, also of one of a library, as `torchvision:resnet18`.

    Raises UserError, which names no place, where there is none.
    """
    known = networks(dataset)
    if isinstance(name, str) and ":" in name:
        return library_network(name)
    if not known:
        raise UserError(f"there are no networks for {dataset} yet; choose another dataset")
    if isinstance(name, str) and name not in known and any(name in zoo for zoo in zoos().values()):
        raise UserError(f"{name} is no network for {dataset}; valid: {', '.join(sorted(known))}")
    if not isinstance(name, str) or name not in known:
        raise UserError(one_of(name, known, "network"))
    return known[name]


# What is implemented


def module(what, declared):
    """The module of a component, imported. Raises UserError where a user's own file cannot be."""
    if "file" in declared:
        return _own_module(declared)
    return import_module(f"distillbench.{KINDS[what].folder}.{declared['module']}")


def implementation(what, name):
    """The class of a method, trainer, optimizer or transform. Raises UserError if it is not as its file declares it."""
    kind, declared = KINDS[what], (methods() if what == "method" else packaged(what))[name]
    found, where = getattr(module(what, declared), declared["class"], None), declared.get("file", name)
    if not isinstance(found, type):
        raise UserError(f"{where}: {declared['class']} is no class once the file is imported; write it as one")
    values = {field: getattr(found, field, rule.default) for field, rule in kind.fields.items()}
    for attribute, value in kind.finished(values).items():
        if value != declared[attribute] and attribute != "bibtex":
            remedy = f"write `{attribute} = ...` with literals in the class's own body"
            raise UserError(f"{where}: {name} inherits or computes its {attribute}; {remedy}")
    return found


def _own_module(declared):
    specification = spec_from_file_location(f"distillbench_own_{declared['module']}", declared["file"])
    own = module_from_spec(specification)
    try:
        specification.loader.exec_module(own)
    except Exception as error:  # whatever the user's code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{declared['file']}: cannot be imported ({reason})") from error
    return own

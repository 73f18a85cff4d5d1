"""Commands on what runs are made of: methods, this code against the official one, datasets, networks."""

import os
from pathlib import Path

import click

from distillbench.commands.base import command
from distillbench.commands.types import DatasetName, File, Folder, SuiteName, argument, option
from distillbench.errors import UserError


@command("check")
@argument("file", File("Python file with a method, or with networks"))
@click.option(
    "--dataset", type=DatasetName(), default="digits", help="whose images networks are tried with (default: digits)"
)
def check(file, dataset):
    """Try the rules that every method or network keeps on a file of your own.

    Exit code 1 if one is broken.
    """
    from distillbench.config import own_files
    from distillbench.config.kinds import METHOD

    kind = own_files.kind_of(file)
    name = own_files.read(file, kind)["name"]
    if kind is METHOD:
        from distillbench.checks.method import check_method

        own_files.use([file])
        broken = check_method(name)
    else:
        from distillbench.checks.network import check_networks

        own_files.use(networks=[file])
        broken = check_networks(dataset)
    print(f"{file}: {name} breaks {broken} rules" if broken else f"{file}: {name} keeps every rule")
    return 1 if broken else 0


@command("parity")
@argument("folder", Folder("folder in the format of the reference vectors"))
def parity(folder):
    """Compare this code with reference vectors of the official code, file by file.

    Exit code 1 if any differ.
    """
    from distillbench.checks.parity import check_folder

    return check_folder(Path(folder))


@command("data")
@argument("name", DatasetName())
@option("--out", File("file to write (default: results/data/NAME.npz)"))
def data(name, out):
    """Make a dataset's file results/data/NAME.npz.

    It is checked against the declared digest.
    """
    from distillbench.data import data_path, load, prepare

    if out and os.path.lexists(out) and os.path.abspath(out) != os.path.abspath(data_path(name)):
        try:
            load(name, out)
        except UserError as error:
            raise UserError(
                f"{out}: is not the file of {name}; nothing is overwritten: choose another --out"
            ) from error
    prepare(name, out or data_path(name))


@command("models")
@option("--dataset", DatasetName())
@option("--suite", SuiteName())
def models(dataset, suite):
    """List the networks with parameters, multiply-adds, features and source.

    A network is looked up by its dataset: one name may be another network on another dataset. With --suite it is the
    networks of a suite's pairs, also your own and those of torchvision and timm.
    """
    from distillbench.reporting.render import markdown
    from distillbench.reporting.sheets.networks import networks_sheet, networks_sheet_of

    if suite is None:
        sheet = networks_sheet(dataset)
    elif dataset is None:
        sheet = networks_sheet_of(suite)
    else:
        raise UserError(f"--dataset {dataset}: --suite {suite} names its own; leave one of them out")
    print(markdown.render(sheet), end="")


COMMANDS = (check, parity, data, models)

"""Commands on what runs are made of: methods, this code against the official one, datasets, networks."""

import os
from pathlib import Path

from distillbench.commands.base import command
from distillbench.commands.types import DatasetName, File, Folder, argument, option
from distillbench.errors import UserError


@command("check")
@argument("file", File("Python file with one class that has `name` and `version`"))
def check(file):
    """Try the rules that every method keeps on a method in a file of your own.

    Exit code 1 if one is broken.
    """
    from distillbench.checks.method import check_method
    from distillbench.config import method_files

    name = method_files.read(file)["name"]
    method_files.use([file])
    broken = check_method(name)
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
def models(dataset):
    """List the networks with parameters, multiply-adds, features and source.

    A network is looked up by its dataset: one name may be another network on another dataset.
    """
    from distillbench.reporting.render import markdown
    from distillbench.reporting.sheets.networks import networks_sheet

    print(markdown.render(networks_sheet(dataset)), end="")


COMMANDS = (check, parity, data, models)

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
@option("--from", File("archive or folder to make it of (default: looked for, else downloaded)"))
@click.option("--track", is_flag=True, help="also have DVC track the archive, in data/")
def data(name, out, track, **options):
    """Make a dataset's file results/data/NAME.npz.

    It is made of the published archive, or its unpacked folder, under its official name in one of the folders that the
    variable DISTILLBENCH_DATA names, or in data/. What is in none of them is downloaded. It is checked against the
    declared digest.
    """
    from distillbench.data import archive_of, data_path, load, prepare
    from distillbench.store.dvc import track_archive

    if out and os.path.lexists(out) and os.path.abspath(out) != os.path.abspath(data_path(name)):
        try:
            load(name, out)
        except UserError as error:
            raise UserError(
                f"{out}: is not the file of {name}; nothing is overwritten: choose another --out"
            ) from error
    prepare(name, out or data_path(name), options["from"])
    if track:
        print(f"{track_archive(*archive_of(name, options['from']))}: commit it, and `dvc push` the archive")


@command("data declare")
@argument("folder", Folder("folder in the format of a published dataset"))
@click.option("--name", required=True, help="its name in suites")
@option("--like", DatasetName("published dataset whose format it has"), required=True)
def data_declare(folder, name, like):
    """Declare a dataset of your own in params/datasets/NAME.yaml.

    Format, constants, augmentation and networks are those of another dataset, images and classes those of the folder.
    """
    from distillbench.data.own import declare

    path, facts = declare(folder, name, like)
    counts = f"{facts['num_train']} training and {facts['num_test']} test images of {facts['num_classes']} classes"
    print(f"{path}: {counts}")


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


COMMANDS = (check, parity, data, data_declare, models)

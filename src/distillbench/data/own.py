"""Declaring a dataset of one's own: a folder in the format of a published dataset, under a name of its own."""

from pathlib import Path

from distillbench.config import components, dataset_files
from distillbench.data import images_of
from distillbench.data.copies import open_folder
from distillbench.errors import UserError
from distillbench.files import write_atomically


def declare(folder, name, like):
    """Write the declaration of the images in a folder, and return its path and what it says of them.

    All of them are read, as preparing does. Raises UserError if they are not as the format has them, if the name is
    that of a published dataset, or if it is declared already and stands for other images.
    """
    packaged = components.packaged("dataset")
    dataset_files.require_free(name, packaged, "--name")
    dataset_files.require_like(like, packaged, "--like")
    module = components.module("dataset", packaged[like])
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; name one that holds {module.published.folder}, or its files")
    declared = {**packaged[like], "md5": None, "classes_sha256": None}
    if hasattr(module, "files"):
        images = module.files(folder, declared)
    else:
        images = images_of(open_folder(folder, module.published), declared, module)
    facts = {key: images.facts[key] for key in dataset_files.COUNTED}
    path, text = dataset_files.FOLDER / f"{name}.yaml", dataset_files.text_of(like, facts)
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
        raise UserError(f"{path}: declares other images, and is not replaced; choose another --name or remove it")
    write_atomically(path, text)
    return path, facts

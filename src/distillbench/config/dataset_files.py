"""Datasets of one's own, in the format of one that the package has: `params/datasets/NAME.yaml`, to be committed."""

import re
from pathlib import Path

from distillbench.config.kinds import DATASET, NAME
from distillbench.errors import UserError, one_of

FOLDER = Path("params/datasets")  # of the project, in which commands are run
COUNTED = ("files_sha256", "num_train", "num_test", "num_classes")  # what the file says of the images


def read_all(packaged):
    """{name: declaration} of the files that are here; packaged: the package's datasets, in the same form.

    Everything but images and classes is that of the dataset that one is `like`: format, size, constants, augmentation,
    networks. Raises UserError, naming the file, for the first that is not right.
    """
    return {path.stem: _read(path, packaged) for path in sorted(FOLDER.glob("*.yaml"))}


def require_free(name, packaged, where):
    """Raise UserError unless a dataset of one's own may have this name."""
    if not re.fullmatch(NAME, name):
        raise UserError(f"{where}: {name!r} is no name of a dataset; use letters, digits and _")
    if name.lower() in {taken.lower() for taken in packaged}:
        raise UserError(f"{where}: the name {name} is taken by a published dataset; choose another")


def require_like(like, packaged, where):
    """Raise UserError unless it names a dataset that is published as files, whose format one's own can have."""
    formats = [name for name, declared in packaged.items() if declared["md5"] or declared["classes_sha256"]]
    if like not in formats:
        raise UserError(f"{where}: {one_of(like, formats, 'dataset')}")


def _read(path, packaged):
    from distillbench.config.yaml_file import read_yaml

    require_free(path.stem, packaged, path)
    content = read_yaml(path)
    for key in content:
        if key not in ("like", *COUNTED):
            raise UserError(f"{path}: {key}: {one_of(key, ('like', *COUNTED), 'key')}")
    for key in ("like", *COUNTED):
        if key not in content:
            raise UserError(f"{path}: {key} is missing; `distillbench data declare` writes it")
    require_like(content["like"], packaged, f"{path}: like")
    published = {"bibtex": "", "md5": None, "classes_sha256": None}
    declared = {**packaged[content["like"]], "name": path.stem, **published, "path": path, **content}
    for key in COUNTED:
        problem = DATASET.fields[key].problem(content[key], declared)
        if problem or content[key] is None:
            raise UserError(f"{path}: {key} {problem or 'has no value'}; declare it again")
    return declared


def text_of(like, facts):
    """The text of a declaration; facts: {key of `COUNTED`: value}."""
    lines = "".join(f'{key}: "{facts[key]}"\n' if key == COUNTED[0] else f"{key}: {facts[key]}\n" for key in COUNTED)
    return f"# Written by `distillbench data declare`; a suite has it as its `dataset`\nlike: {like}\n{lines}"

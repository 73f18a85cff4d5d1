"""Parity: this code against reference vectors that were obtained by running the official repositories.

A folder of reference vectors has the parts losses/METHOD/CASE, losses_integration/STUDENT__TEACHER/METHOD,
models/DICT__NAME, optim/CASE and configs/REPOSITORY/FILE, each case a JSON description, where it has arrays with an
.npz beside it. Values agree if |a - b| <= atol + rtol * max|b| over an array; the tolerances below are those stated
with the vectors.
"""

import os
from collections import Counter
from pathlib import Path

from distillbench.checks.parity.cases import (
    INTERMEDIATE,
    Mismatch,
    NotCovered,
    NothingToCompare,
    Unreadable,
    first_line,
    read_case,
)
from distillbench.checks.parity.configurations import check_configuration
from distillbench.checks.parity.losses import check_integration, check_loss
from distillbench.checks.parity.networks import check_model, check_structure
from distillbench.checks.parity.optimizers import check_schedule, check_trainer
from distillbench.errors import UserError

PARTS = ("losses", "losses_integration", "models", "optim", "configs")


def check_folder(folder):
    """Check every case of a folder and print a line each, whatever the files hold.

    Returns 0, or 1 if any differs or is unreadable, or if nothing was compared.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected reference vectors (losses/, models/, optim/, ...)")
    counts, uncovered = Counter(), Counter()
    for path, problem in files(folder):
        relative = path.relative_to(folder)
        outcome, detail = ("UNREADABLE", problem) if problem else check_file(path, relative)
        counts[outcome] += 1
        if outcome == "not covered yet":
            uncovered[detail] += 1
        print(f"{outcome:8} {relative}" + (f" ({detail})" if outcome == "agrees" else f": {detail}"))
    for what, number in sorted(uncovered.items()):
        print(f"not covered yet: {what} ({number} file{'s' if number > 1 else ''})")
    if not counts:
        print(f"no vectors in {folder}: a case is NAME.json, with its arrays in NAME.npz")
    agree, bad = counts["agrees"], counts["DIFFERS"] + counts["UNREADABLE"]
    print(
        f"{agree} agree, {counts['DIFFERS']} differ, {counts['not covered yet']} not covered yet,"
        f" {counts['nothing to compare']} with nothing to compare, {counts['UNREADABLE']} unreadable"
    )
    return 0 if agree and not bad else 1


def files(folder):
    """[(path, problem or "")] of the descriptions below a folder, arrays without one and folders that are closed."""
    found, seen = [], set()

    def unreadable(error):
        found.append((Path(error.filename), f"cannot be listed ({error.strerror})"))

    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(place, name)) not in seen]
        found += [(Path(place, name), "") for name in (*names, *folders) if name.endswith(".json")]
        described = {name.removesuffix(".json") for name in (*names, *folders)}
        lone = [name for name in names if name.endswith(".npz") and name.removesuffix(".npz") not in described]
        found += [(Path(place, name), "has no .json beside it") for name in lone]
    return sorted(found)


def check_file(path, relative):
    """(outcome, detail) of one file."""
    try:
        description, arrays = read_case(path)
        number = check_case(relative, description, arrays)
        unread = [name for name in arrays if name not in arrays.read and not INTERMEDIATE.search(name)]
        if unread:
            raise NotCovered(f"array {unread[0]}")
        if not number and arrays.overflowed:
            raise NothingToCompare("no number in it is finite")
        if not number:
            raise Unreadable("holds nothing to compare")
        silent = len(arrays.overflowed - arrays.compared)
        return "agrees", f"{number} arrays" + (f"; {silent} without a finite number" if silent else "")
    except Mismatch as error:
        return "DIFFERS", str(error)
    except NotCovered as reason:
        return "not covered yet", str(reason)
    except NothingToCompare as reason:
        return "nothing to compare", str(reason)
    except Unreadable as error:
        return "UNREADABLE", str(error)
    except KeyError as error:
        return "UNREADABLE", f"has no {error}"
    except Exception as error:  # what a file holds must not keep the others from being compared
        return "UNREADABLE", f"not a case of this format ({type(error).__name__}: {first_line(error)})"


def check_case(relative, description, arrays):
    """Compare one case; returns the number of arrays compared. Raises Mismatch, NotCovered or, as anything, Unreadable.

    relative: path of its description; description, arrays: its contents, as of `read_case`.
    """
    part, place, name = relative.parts[0], relative.parts[1:-1], relative.name
    if name.startswith("INDEX"):
        raise NotCovered("the indexes, which hold no numbers")
    if part in PARTS and not isinstance(description, dict):
        raise Unreadable(f"holds a {type(description).__name__}, expected an object with named entries")
    if part == "losses" and len(place) == 1:
        return check_loss(description, arrays, place[0])
    if part == "losses_integration" and len(place) == 1:
        return check_integration(description, arrays, relative.stem)
    if part == "models" and not place and name.endswith(".structure.json"):
        return check_structure(description)
    if part == "models" and not place and name.endswith(".parity.json"):
        return check_model(description, arrays)
    if part == "optim" and not place and name.startswith("lr_schedule"):
        return check_schedule(description)
    if part == "optim" and not place:
        return check_trainer(description, arrays)
    if part == "configs" and len(place) == 1:
        return check_configuration(description, place[0], name)
    raise NotCovered("/".join((part, *place)) if len(relative.parts) > 1 else name)

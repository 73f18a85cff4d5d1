"""A copy of image files on a disk of the machine that reads them, made by the first run there and used by all."""

import fcntl
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from distillbench.data.listing import AT_ONCE, THREADS
from distillbench.errors import UserError
from distillbench.files import naming, write_atomically

LOCK = ".lock"


def staged(files, name, splits, folder, report=print):
    """`Files` of a dataset that are read below a folder, where those of `splits` are once this returns.

    files: `data.Files`; name: of the dataset; splits: of "training" and "test"; folder: may hold $VARIABLES of the
    machine, and begin with ~. Each file is there whole or not at all, and of several processes one copies while the
    others wait: whatever ends one, the next goes on. Raises UserError where a variable is not set, the folder cannot be
    made, room is lacking, or a file is not as listed.
    """
    root = Path(os.path.expanduser(os.path.expandvars(folder)))
    if "$" in str(root):
        raise UserError(
            f"DATASET.STAGE: {folder}: a variable in it is not set on this machine; set it or name a folder"
        )
    of_bytes = files.source.get("files_sha256", files.digest)  # their lists are the same where bytes alone differ
    root = root.absolute() / f"{name}-{of_bytes[:12]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"DATASET.STAGE: {root}: cannot be made ({error.strerror}); name a folder that can be written to"
        ) from None
    for split in splits:
        complete = root / f".{split}"
        if complete.exists():
            continue
        with open(root / LOCK, "a") as lock:
            _take(lock, root, report)
            if not complete.exists():
                _copy(getattr(files, split), root, report)
                os.sync()  # once for all files: what they hold is there before it counts
                write_atomically(complete, "")
    return files._replace(staged=str(root))


def _take(lock, root, report):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        report(f"{root}: another process copies the images; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _copy(listing, root, report):
    """Copy those files of a split that are not there in their size."""
    there = replace(listing, folder=str(root))

    def is_missing(position):
        try:
            return there.path(position).stat().st_size != listing.sizes[position]
        except FileNotFoundError:
            return True

    def copy(positions):
        for position in positions:
            path = there.path(position)
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.tmp")
            with naming(path):
                aside.write_bytes(listing.read(position))
            os.replace(aside, path)
        return len(positions)

    missing = [position for position in range(len(listing)) if is_missing(position)]
    needed, free = int(listing.sizes[missing].sum()), shutil.disk_usage(root).free
    if needed > free:
        room = f"{needed / 1e9:.1f} GB of images do not fit, {free / 1e9:.1f} GB are free"
        raise UserError(f"DATASET.STAGE: {root}: {room}; make room, name another folder, or leave it out")
    report(f"{listing.folder} -> {root}: {len(missing)} files, {needed / 1e9:.1f} GB")
    parts = [missing[start : start + AT_ONCE] for start in range(0, len(missing), AT_ONCE)]
    with ThreadPoolExecutor(THREADS) as pool, tqdm(desc="copying", total=len(missing), disable=None) as bar:
        for number in pool.map(copy, parts):
            bar.update(number)

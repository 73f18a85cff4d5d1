"""What lies in results/ and belongs to nothing: no suite of any git reference or of the working tree, no pin.

A reference's suites are expanded by its own code, since another version may expand them into other runs.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from distillbench.config.components import PACKAGE
from distillbench.config.specification import RUN_ID
from distillbench.errors import UserError
from distillbench.store.claim import LOCK, claim

PINS = "params/pins.txt"
EXPAND = """\
import pathlib
from distillbench.planning import plan_suite
for path in sorted(pathlib.Path("params").glob("*.yaml")):
    print(*plan_suite(path.stem, write=False).runs, sep="\\n")
"""


class Unused(NamedTuple):
    """All that lies there of a run: parts are "run", "work" (state in flight), "spec" and "table" (of its logits)."""

    run: str
    parts: dict  # {part: path}
    size: int

    def delete(self, store):
        """Whether it was deleted: not if somebody works on the run by now."""
        work = store.work(self.run)
        try:
            with claim(work, wait=False):
                for path in self.parts.values():
                    if path == work:
                        _empty(path)
                    elif path.is_dir() and not path.is_symlink():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
        except UserError:
            return False
        for path in (*self.parts.values(), work):
            _remove_empty(path.parent, store.results)
        return True


class Found(NamedTuple):
    """problems: lines on references and pins that could not be read: as long as there are any, delete nothing."""

    items: list
    problems: list
    scope: str  # what was looked at, for people


def find_unused(store, root="."):
    """What in the store is kept by no suite and no pin; deletes nothing. The pins of every reference count.

    Raises UserError if there is no params/ or git fails.
    """
    root, problems = Path(root), []
    if not (root / "params").is_dir():
        raise UserError("params/: no such folder here; run this in the project's directory")
    references = _references(root)
    trees = {}
    for name, layers in (references or {}).items():
        try:
            code = _code(root, layers)
            if any(name == "params" for entries in code for *_, name in entries):
                trees.setdefault(code, (layers, []))[1].append(name)
        except UserError as error:
            problems.append(f"{name}: {error}")
    named_by_suites, pins = set(), []
    for code, (layers, names) in trees.items():
        with tempfile.TemporaryDirectory(prefix="distillbench-gc-") as folder:
            try:
                for layer, entries in zip(layers, code, strict=True):
                    _extract(root, layer, entries, folder)
                pins += [text for _, text in _pins(folder)]
                named_by_suites |= _expand(folder, Path(folder) / "src")
            except UserError as error:
                problems.append(f"{', '.join(names)}: {error}")
    installed, own = PACKAGE.parent, (root / "src").resolve()  # the same unless a copy is installed
    for source in {installed, own} if (own / PACKAGE.name).is_dir() else {installed}:
        try:
            named_by_suites |= _expand(root, source)
        except UserError as error:
            problems.append(f"the working tree: {error}")
    places = _places(store)
    for number, text in _pins(root):
        matches = _named(text, places)
        if len(matches) > 1 or not (matches or re.fullmatch(RUN_ID, text)):
            what = f"{len(matches)} runs begin so" if matches else "no run here begins so"
            problems.append(f"{PINS}, line {number}: {text}: {what}; write the whole id")
        pins.append(text)
    kept = set().union(*(_named(text, places) for text in pins), filter(store.running, places))
    kept = named_by_suites | _with_teachers(kept, places, store, problems)
    items = [Unused(run, places[run], sum(map(_size, places[run].values()))) for run in sorted(places.keys() - kept)]
    if references is None:
        return Found(items, problems, "of the working tree (outside git, so it alone counts)")
    return Found(items, problems, f"of the working tree or of {len(references)} git references")


# References


def _references(root):
    """{reference: [commits whose files lie over each other]}, or None outside git.

    All refs (branches, remote-tracking branches, tags and whatever else tools keep), HEAD, and every stash: its files,
    its index, its untracked files on top.
    """
    if not any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents)):
        return None
    found = {ref: [ref] for ref in _lines(root, "for-each-ref", "--format=%(refname)") if ref != "refs/stash"}
    if _succeeds(root, "rev-parse", "-q", "--verify", "HEAD"):
        found["HEAD"] = ["HEAD"]
    for i, commit in enumerate(_lines(root, "stash", "list", "--format=%H")):
        found[f"stash@{{{i}}}"] = (
            [commit, f"{commit}^3"] if _succeeds(root, "rev-parse", "-q", "--verify", f"{commit}^3") else [commit]
        )
        found[f"stash@{{{i}}}^2"] = [f"{commit}^2"]
    return found


def _code(root, layers):
    """[(mode, kind, object, name) of what decides a commit's runs, for each layer].

    That is src/ and params/, or everything where a suite uses files of methods, of networks or published ones, which
    may lie anywhere.
    """
    paths = ["src", "params"]
    named = ("-e", "method_files", "-e", "network_files", "-e", "published")
    if any(_succeeds(root, "grep", "-q", *named, layer, "--", "params") for layer in layers):
        paths = []
    trees = [_git(root, "ls-tree", "-z", layer, "--", *paths) for layer in layers]
    return tuple(
        tuple(
            (*entry.partition("\t")[0].split(), entry.partition("\t")[2])
            for entry in os.fsdecode(tree).split("\0")
            if entry
        )
        for tree in trees
    )


def _extract(root, commit, entries, folder):
    if entries:
        paths = [name for *_, name in entries]
        content = _git(root, "archive", "--format=tar", commit, "--", *paths)
        with tarfile.open(fileobj=BytesIO(content)) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(folder)
        names = _git(root, "ls-tree", "-r", "-z", "--name-only", commit, "--", *paths)
        for name in os.fsdecode(names).split("\0"):
            if not os.path.lexists(Path(folder) / name):
                raise UserError(f"git archive leaves {name} out; remove export-ignore from .gitattributes")


def _expand(folder, source):
    """The ids of the runs of all suites in a folder, by the code in `source`."""
    if not (source / PACKAGE.name).is_dir():  # else another copy would be imported
        raise UserError(f"has no src/{PACKAGE.name}")
    command = [sys.executable, "-c", EXPAND]
    environment = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise UserError(f"its suites cannot be expanded ({reason.removeprefix('distillbench.errors.UserError: ')})")
    return set(done.stdout.split())


def _succeeds(root, *arguments):
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False).returncode == 0


def _lines(root, *arguments):
    return os.fsdecode(_git(root, *arguments)).splitlines()


def _git(root, *arguments):
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise UserError("git is not installed, but this is a git repository: its references are not known") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {error.returncode}"]
        reason = next((line for line in said if line.startswith(("fatal:", "error:"))), said[-1]).strip()
        raise UserError(f"git {arguments[0]} failed ({reason})") from None


# Pins and places


def _pins(root):
    """[(line number, id or its beginning)] of params/pins.txt; none if there is no such file."""
    path = Path(root) / PINS
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ()
    texts = ((number, line.partition("#")[0].strip()) for number, line in enumerate(lines, 1))
    return [(number, text.removeprefix("results/runs/").rstrip("/")) for number, text in texts if text]


def _named(text, runs):
    """The runs that an id, its beginning or the beginning of its hash names."""
    if text in runs:
        return {text}
    return {run for run in runs if run.startswith(text) or run.rpartition("-")[2].startswith(text)}


def _with_teachers(runs, places, store, problems):
    """The runs and, as far as they are here, the teachers that they were distilled from; adds to problems."""
    runs, todo = set(runs), list(runs)
    while todo:
        run = todo.pop()
        if "spec" in places[run] or (store.run(run) / "spec.json").exists():
            try:
                teacher = store.specification(run).teacher_id
            except UserError as error:
                problems.append(f"{run}, pinned or being worked on: its teacher is not known ({error})")
                continue
            if teacher in places and teacher not in runs:
                runs.add(teacher)
                todo.append(teacher)
    return runs


def _places(store):
    """{run id: {part: path}} of everything that is named like a run, complete or not."""
    found = {}
    folders = (("run", "runs", ""), ("work", "work", ""), ("spec", "specs", ".json"), ("table", "tables", ""))
    for part, folder, ending in folders:
        for path in (store.results / folder).glob(f"*/*/*/*{ending}"):
            run = path.relative_to(store.results / folder).as_posix().removesuffix(ending)
            if re.fullmatch(RUN_ID, run):
                found.setdefault(run, {})[part] = path
    return found


def _empty(work):
    """Remove what is in a work directory; the claim removes its lock and the directory."""
    for path in work.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _size(path):
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def _remove_empty(folder, results):
    """Remove a folder and those around it, as long as they are empty, up to results/runs and its like."""
    while folder.parent != results and folder.exists() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent

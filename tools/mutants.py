"""Break the code on purpose, one line at a time, and see whether the tests notice.

python tools/mutants.py [--jobs N] [PATTERN ...]     those whose file, function or `falsifies` contain a PATTERN

tests/mutants.toml is a list of [[mutant]]:

    file        path in the project
    function    name of a function or class, or Class.function, in which `old` stands; optional
    old, new    a text that occurs exactly once there, and what takes its place
    falsifies   what would be wrong without anyone knowing
    tests       arguments of pytest: files or tests that should notice, so few that they take seconds

A mutant is tried in a copy of the project. Before the first one the copy has to pass all tests that are named, and to
fail them once its package cannot be imported: else they look at another copy, and notice nothing.

Exit codes: 0 all noticed, 1 some survived, 2 the list or the tests have to be mended first.
"""

import argparse
import ast
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tests" / "mutants.toml"
PACKAGE = "src/distillbench/__init__.py"
LEFT_OUT = {".git", ".snakemake", "reports", "build", "dist", "__pycache__", ".pytest_cache", ".ruff_cache"}
SECONDS = 600  # tests that take longer hang, which is noticed
PRELOADED = ("pytest", "torch", "torchvision.transforms.functional", "sklearn.datasets", "scipy.stats", "pandas")
PASSED, NO_SUCH_TEST, NOTHING_RUN = 0, 4, 5  # of pytest


class Problem(Exception):
    """One line for the user."""


class Mutant(NamedTuple):
    file: str
    function: str
    old: str
    new: str
    falsifies: str
    tests: tuple
    text: str  # of the whole file, mutated

    def __str__(self):
        return f"{self.file} {self.function}".rstrip() + f": {self.falsifies}"


# The list


def read_list(path=LIST, root=ROOT):
    """[Mutant]. Raises Problem for an entry that does not fit the code as it is now."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise Problem(f"{path}: not a list of [[mutant]] ({type(error).__name__}: {error})") from None
    mutants = [_mutant(entry, f"{path.name}, mutant {number}", root) for number, entry in enumerate(entries, 1)]
    for number, mutant in enumerate(mutants, 1):
        if (mutant.file, mutant.text) in {(earlier.file, earlier.text) for earlier in mutants[: number - 1]}:
            raise Problem(f"{path.name}, mutant {number} ({mutant}): stands twice")
    return mutants


def _mutant(entry, where, root):
    kinds = {"file": str, "function": str, "old": str, "new": str, "falsifies": str, "tests": list}
    for key in {*kinds, *entry} - {"function"}:
        if key not in kinds or not isinstance(entry.get(key), kinds[key]) or not (entry[key] or key == "new"):
            raise Problem(f"{where}: `{key}` is missing, empty or not valid; keys are {', '.join(kinds)}")
    if not all(isinstance(test, str) for test in entry["tests"]):
        raise Problem(f"{where}: `tests` is a list of texts, arguments of pytest")
    file, function, old = entry["file"], entry.get("function", ""), entry["old"]
    where = f"{where} ({file}): "
    try:
        text = (root / file).read_text(encoding="utf-8")
    except OSError:
        raise Problem(f"{where}no such file") from None
    start, stop = _extent(text, function, where) if function else (0, len(text))
    count = text.count(old, start, stop)
    if count != 1:
        raise Problem(f"{where}occurs {count} times, not once{f' in {function}' if function else ''}: {old!r}")
    at = text.index(old, start, stop)
    mutated = text[:at] + entry["new"] + text[at + len(old) :]
    before, after = _parsed(text), _parsed(mutated)
    if mutated == text or (before and before == after):
        raise Problem(f"{where}{entry['new']!r} changes nothing")
    if before and not after:
        raise Problem(f"{where}{entry['new']!r} is a syntax error there")
    return Mutant(file, function, old, entry["new"], entry["falsifies"], tuple(entry["tests"]), mutated)


def _parsed(text):
    """The syntax of a Python file, as text; None of any other file."""
    try:
        return ast.dump(ast.parse(text))
    except SyntaxError:
        return None


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _extent(text, function, where):
    """Where a function begins and ends in its file's text."""
    try:
        found = ast.parse(text).body
    except SyntaxError:
        raise Problem(f"{where}the file is no Python; leave out `function`") from None
    for name in function.split("."):
        nodes = [node for entry in found for node in (ast.walk(entry) if "." not in function else [entry])]
        found = [node for node in nodes if isinstance(node, DEFINITIONS) and node.name == name]
        if len(found) != 1:
            raise Problem(f"{where}{len(found)} functions or classes are called {function}")
        (node,) = found
        found = node.body
    lines = text.splitlines(keepends=True)
    return sum(map(len, lines[: node.lineno - 1])), sum(map(len, lines[: node.end_lineno]))


# The copies


class Copy:
    """A copy of the project with a temporary folder of its own beside it, for one test process at a time."""

    def __init__(self, folder):
        self.folder, self.project = folder, folder / "project"
        shutil.copytree(ROOT, self.project, symlinks=True, ignore=_ignored)

    def start(self, file, text, tests):
        """The id of a process that runs tests with another text in a file; it leads a process group of its own."""
        self.file, self.whole = self.project / file, (self.project / file).read_text(encoding="utf-8")
        self.file.write_text(text, encoding="utf-8")
        self.started = time.monotonic()
        if process := os.fork():
            return process
        try:
            os.setsid()
            signal.alarm(SECONDS)
            with open(self.folder / "output", "wb") as output, open(os.devnull) as nothing:
                for stream, number in ((nothing, 0), (output, 1), (output, 2)):
                    os.dup2(stream.fileno(), number)
            os._exit(self._pytest(tests))
        finally:  # never on into the parent's code
            os._exit(3)

    def _pytest(self, tests):
        import pytest

        os.chdir(self.project)
        source = str(self.project / "src")
        sys.path[:0] = [str(self.project), source]
        os.environ |= {"PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"}
        os.environ["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
        os.environ.pop("PYTEST_ADDOPTS", None)
        options = ["-x", "-q", "--tb=line", "-rfE", "--color=no", "-p", "no:cacheprovider"]
        code = pytest.main([*options, f"--basetemp={self.folder / 'tmp'}", *tests])
        sys.stdout.flush()
        return int(code)

    def end(self, process, status):
        """(pytest's exit code, or less than 0 for a signal; output; seconds), with the file as it was."""
        _kill(process)  # what a test left running
        self.file.write_text(self.whole, encoding="utf-8")
        output = (self.folder / "output").read_text(encoding="utf-8", errors="replace")
        return os.waitstatus_to_exitcode(status), output, time.monotonic() - self.started


def _ignored(folder, names):
    """What is no part of the project: environments, caches, results."""
    folder = Path(folder)
    left_out = LEFT_OUT | ({"cache", "tmp"} if folder == ROOT / ".dvc" else set())
    results = folder == ROOT / "results"
    return [
        name
        for name in names
        if name in left_out or (folder / name / "pyvenv.cfg").exists() or (results and (folder / name).is_dir())
    ]


def _kill(process):
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


# The work


def run(mutants, jobs):
    """[Mutant] that survived. Raises Problem where the tests themselves have to be mended."""
    survived, number = [], 0
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        copies = [Copy(Path(folder) / str(i)) for i in range(jobs)]
        package = (ROOT / PACKAGE).read_text(encoding="utf-8")
        for broken in (False, True):
            text = "raise ImportError('on purpose')\n" if broken else package
            for tests, code, output, seconds in tried(copies, [(t, PACKAGE, text, t) for t in by_file(mutants)]):
                prove(tests[0].partition("::")[0], broken, code, output, seconds)
        for mutant, code, output, seconds in tried(copies, [(m, m.file, m.text, m.tests) for m in mutants]):
            if code != PASSED and not _parsed(mutant.text) and "SyntaxError" in output:
                raise Problem(f"{LIST.name}: {mutant}: {mutant.new!r} is a syntax error there")
            number, word = number + 1, "noticed"
            by = _said(output, "FAILED", "ERROR") if code >= 0 else f"stopped after {seconds:.0f} s"
            if code == PASSED:
                survived, word, by = [*survived, mutant], "SURVIVED", "nothing"
            say(f"{word:8}  {seconds:6.1f} s  {number}/{len(mutants)}  {mutant}  [{by.partition(' - ')[0]}]")
    return survived


def tried(copies, works):
    """Yield (key, exit code, output, seconds) of each work (key, file, its text, tests), as they end."""
    free, running, works = list(copies), {}, list(reversed(works))
    try:
        while works or running:
            while works and free:
                (key, *work), copy = works.pop(), free.pop()
                running[copy.start(*work)] = key, copy
            process, status = os.wait()
            key, copy = running.pop(process)
            free.append(copy)
            yield key, *copy.end(process, status)
    finally:
        for process in running:
            _kill(process)


def by_file(mutants):
    """The tests that are named, a tuple for each test file."""
    files = {}
    for test in sorted({test for mutant in mutants for test in mutant.tests}):
        files.setdefault(test.partition("::")[0], []).append(test)
    return files.values()


def prove(file, broken, code, output, seconds):
    """Raise Problem unless a file's tests pass, and fail when the package is broken."""
    if broken and code == PASSED:
        raise Problem(f"{file}: passes with a package that cannot be imported: it tests another copy")
    if broken:
        return
    if code in (NO_SUCH_TEST, NOTHING_RUN):
        raise Problem(f"{_said(output, 'ERROR') or f'{file}: no test'}; correct `tests` in {LIST.name}")
    if code != PASSED:
        raise Problem(f"{file}: fails without any change; mend it first ({_said(output, 'FAILED', 'ERROR')})")
    say(f"clean     {seconds:6.1f} s  {file}")


def _said(output, *words):
    """The first line of pytest's output that begins with one of the words, without it."""
    found = re.search(rf"^(?:{'|'.join(words)}):? (.*)", output, re.MULTILINE)
    return found[1] if found else ""


def say(text):
    print(text, flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="how many at a time")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="those whose description contains one of these")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what was started
    try:
        mutants = [m for m in read_list() if any(p in str(m) for p in options.patterns or [""])]
        if not mutants:
            raise Problem(f"no mutant in {LIST.name} matches {' '.join(options.patterns)}")
        sys.dont_write_bytecode = True
        for name in PRELOADED:  # once, and not in the process of every mutant
            with suppress(ImportError):
                import_module(name)
        survived = run(mutants, max(1, min(options.jobs, len(mutants))))
    except Problem as problem:
        print(f"mutants: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    for mutant in survived:
        say(f"\nSURVIVED  {mutant}\n  - {mutant.old}\n  + {mutant.new}\n  tests: {' '.join(mutant.tests)}")
    say(f"{len(mutants)} mutants, {len(mutants) - len(survived)} noticed, {len(survived)} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())

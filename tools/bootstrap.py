"""Put the project and everything it needs into a virtual environment.

python tools/bootstrap.py VENVDIR     VENVDIR '' stands for the environment that this Python belongs to

It is written in what Python 2 and 3 have in common, so that a Python that is too old gets to say so.
Exit codes: 0 installed or up to date, 1 the installation failed, 2 something here has to change first.
"""

import glob
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST, NEWEST = (3, 11), (3, 13)
STAMP = ".distillbench-installed"
GB = 1e9
# In GB, measured on Linux x86-64, where PyPI's torch brings CUDA along; elsewhere an estimate.
DOWNLOAD, INSTALLED = (3.2, 6.6) if sys.platform.startswith("linux") else (0.5, 1.5)


class Problem(Exception):
    """One line for the user."""


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def version(numbers):
    return ".".join(str(number) for number in numbers)


def check_python():
    if not OLDEST <= tuple(sys.version_info[:2]) <= NEWEST:
        raise Problem(
            "Python %s to %s is needed and %s is %s: name one that fits, as in `make PYTHON=python3.12 demo`"
            % (version(OLDEST), version(NEWEST), sys.executable, version(sys.version_info[:3]))
        )


def has_module(name):
    import importlib.util

    return importlib.util.find_spec(name) is not None


def check_venv_modules():
    if not (has_module("venv") and has_module("ensurepip")):
        raise Problem(
            "%s cannot make virtual environments: install the package that adds venv and ensurepip to it "
            "(Debian, Ubuntu: apt install python%s-venv)" % (sys.executable, version(sys.version_info[:2]))
        )


def existing_part(path):
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def check_disk(prefix):
    """pip keeps its downloads in the temporary folder until it is done, and a copy of them in its cache."""
    temporary, home = tempfile.gettempdir(), os.path.expanduser("~")
    places = [(existing_part(prefix), INSTALLED), (temporary, DOWNLOAD)]
    disks = [os.stat(place).st_dev for place, _ in places]
    if os.path.exists(home) and os.stat(home).st_dev in disks and not os.environ.get("PIP_NO_CACHE_DIR"):
        places.append((home, DOWNLOAD))
        disks.append(os.stat(home).st_dev)
    for disk in sorted(set(disks)):
        here = [place for place, own in zip(places, disks) if own == disk]
        folder, needed = here[0][0], sum(size for _, size in here)
        free = shutil.disk_usage(folder).free / GB
        if free < needed:
            raise Problem(
                "the installation needs %.1f GB and the disk of %s has %.1f GB free: free some, "
                "or choose other disks with VENV=DIR and TMPDIR=DIR" % (needed, folder, free)
            )


def digest():
    parts = [os.fsencode(ROOT), platform.python_version().encode()]
    for name in ("pyproject.toml", "constraints.txt"):
        with open(os.path.join(ROOT, name), "rb") as file:
            parts.append(file.read())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_installed(python, stamp):
    if not (os.path.exists(python) and os.path.exists(stamp)):
        return False
    with open(stamp) as file:
        return file.read().strip() == digest()


def python_version_of(python):
    try:
        command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        return subprocess.check_output(command, stderr=subprocess.STDOUT).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def check_environment(venv, python):
    """Refuse a folder that is there but is no environment of this Python."""
    if not os.path.exists(venv) or (os.path.isdir(venv) and not os.listdir(venv)):
        return
    found, ours = python_version_of(python), version(sys.version_info[:2])
    if found == ours:
        return
    wrong = "is not a working virtual environment (its bin/python is missing or does not run)"
    if found:
        wrong = "was made with Python %s and this is Python %s" % (found, ours)
    raise Problem("%s %s: remove it and try again, or choose another with VENV=DIR" % (venv, wrong))


def check_active():
    """VENV= on a system's own Python would replace packages that other programs rely on."""
    is_conda = os.path.isdir(os.path.join(sys.prefix, "conda-meta"))
    if sys.prefix == sys.base_prefix and not is_conda:
        raise Problem(
            "VENV= means the active environment and %s belongs to none: activate one, or leave VENV= out"
            % sys.executable
        )


def run_pip(command):
    """On a terminal show the package pip is at on one line, elsewhere only what goes wrong."""
    if not sys.stdout.isatty():
        subprocess.check_call(command + ["--quiet"], cwd=ROOT)
        return
    width = shutil.get_terminal_size().columns - 1
    options = {"stdout": subprocess.PIPE, "universal_newlines": True, "errors": "backslashreplace"}
    process = subprocess.Popen(command + ["--progress-bar=off"], cwd=ROOT, **options)
    try:
        for line in process.stdout:
            sys.stdout.write("\r\033[K" + line.strip()[:width])
            sys.stdout.flush()
    finally:
        process.wait()
        sys.stdout.write("\r\033[K")
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)


def announce(prefix, is_update):
    if is_update:
        say("Bringing the packages in %s up to date with constraints.txt" % prefix)
        return
    say("Installing distillbench and its dependencies, PyTorch among them, into %s" % prefix)
    say("(once; pip downloads about %.1f GB, which take %.1f GB there; some minutes)" % (DOWNLOAD, INSTALLED))


def install(venv):
    prefix = os.path.abspath(venv) if venv else sys.prefix
    python = os.path.join(prefix, "bin", "python") if venv else sys.executable
    stamp = os.path.join(prefix, STAMP)
    if is_installed(python, stamp):
        return
    if venv:
        check_environment(prefix, python)
    else:
        check_active()
    has_torch = bool(glob.glob(os.path.join(prefix, "lib", "python*", "site-packages", "torch")))
    if not has_torch:
        check_disk(prefix)
    is_new = not os.path.exists(python)
    has_pip = not is_new and subprocess.call([python, "-c", "import pip"], stderr=subprocess.DEVNULL) == 0
    if not has_pip:
        check_venv_modules()

    announce(prefix, has_torch)
    if os.path.exists(stamp):
        os.remove(stamp)
    if is_new:
        subprocess.check_call([sys.executable, "-m", "venv", "--without-pip", prefix])
    if not has_pip:
        subprocess.check_call([python, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
    run_pip(
        [python, "-m", "pip", "install", "--disable-pip-version-check"]
        + ["--constraint", "constraints.txt", "--editable", ".[test]"]
    )
    with open(stamp, "w") as file:
        file.write(digest() + "\n")


def main(arguments):
    if len(arguments) != 1:
        sys.stderr.write(__doc__)
        return 2
    try:
        check_python()
        install(arguments[0])
    except Problem as problem:
        sys.stderr.write("distillbench: %s\n" % problem)
        return 2
    except subprocess.CalledProcessError as error:
        sys.stderr.write("distillbench: %s failed (see above); the same make command resumes\n" % error.cmd[2])
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("distillbench: interrupted; the same make command resumes\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

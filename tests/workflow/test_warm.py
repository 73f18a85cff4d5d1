"""The warm process: its jobs are what they would be by themselves, and whatever is unusual runs by itself."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from project import new_project, succeeded

from distillbench import warm
from distillbench.files import read_json

MAIN = "src/distillbench/commands/__init__.py"
WARM = "src/distillbench/warm.py"
JOBS = "src/distillbench/jobs.py"
JOB = ("python", "-m", "distillbench", "complete", "RUN")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only: elsewhere jobs run by themselves")


def eventually(what, seconds=60):
    """Wait until it is so."""
    for _ in range(50 * seconds):
        if value := what():
            return value
        time.sleep(0.02)
    raise AssertionError("it is too late")


def alive(pid):
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def warm_processes(folder):
    """Those whose folder this is: [pid]"""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mine = os.readlink(process / "cwd") == str(folder)
            if mine and b"distillbench.warm" in (process / "cmdline").read_bytes() and alive(process.name):
                found.append(int(process.name))
    return found


@pytest.fixture
def heard():
    """Signals are, also where these tests run in the background, which ignores some."""
    ignored = [number for number in warm.PASSED_ON if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def here(tmp_path, monkeypatch, heard):
    """A project whose commands are act.py, which a test writes, and whose warm process imports little, to be quick."""
    project = new_project(tmp_path)
    needed = next(line for line in (tmp_path / WARM).read_text().splitlines() if line.startswith("NEEDED = "))
    project.edit(needed, 'NEEDED = ("commands",)', WARM)
    # compiled: Python takes an interrupt of exec() with a text for one that nobody handled
    act = "exec(compile(open('act.py').read(), 'act.py', 'exec'))"
    project.edit("_invoke(sys.argv[1:] if arguments is None else list(arguments))", act, MAIN)
    enter(tmp_path, monkeypatch)
    return project


def enter(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder / "src"))
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv(warm.VARIABLE, raising=False)


@contextmanager
def served(monkeypatch):
    """For the time of the context jobs find a warm process; gives the descriptor that keeps it."""
    monkeypatch.setenv(warm.VARIABLE, "")
    held = warm.start({name: value for name, value in os.environ.items() if name != warm.VARIABLE})
    folder = Path(os.environ[warm.VARIABLE]).parent
    try:
        yield held
    finally:
        monkeypatch.delenv(warm.VARIABLE)
        with suppress(OSError):
            os.close(held)
        eventually(lambda: not warm_processes(Path.cwd()))
        shutil.rmtree(folder, ignore_errors=True)  # of one that did not end by itself


class Act:
    """A job that does as it is told; `pid` is that of the process that does it."""

    def __init__(self, text, *command, **options):
        Path("pid").unlink(missing_ok=True)
        Path("act.py").write_text(f"import os, pathlib\npathlib.Path('pid').write_text(f'{{os.getpid()}} ')\n{text}")
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # env: what a library of this process (readline) put into its environment is not in Python's
        self.job = subprocess.Popen(command or JOB, env=dict(os.environ), **streams, **options)

    @property
    def pid(self):
        eventually(lambda: self.job.poll() is not None or (Path("pid").exists() and Path("pid").read_text()))
        return int(Path("pid").read_text())

    @property
    def warm(self):
        return self.pid != self.job.pid

    def says(self, line):
        assert self.job.stdout.readline() == f"{line}\n"

    def end(self):
        out, err = self.job.communicate(timeout=60)
        return self.job.returncode, out, err


ACTS = {
    "0": "print('done')",
    "3": "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)",
    "1": "1 / 0",
    "text": "import sys; sys.exit('a reason')",
    "kill": "os.kill(os.getpid(), 9)",
    "abort": "print('lost'); os.abort()",
    "pipe": "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGPIPE)",
    "input": "print(input())",
    "process": "print(sorted(os.listdir('/proc/self/fd')), os.getcwd(), sys.argv[1:], os.umask(0))",
    "handlers": "import signal; print([str(signal.getsignal(n)) for n in (2, 15, 1, 17)], signal.set_wakeup_fd(-1))",
    "child": "import subprocess; print(subprocess.run(['sh', '-c', 'echo hello; exit 4']))",
}


def test_a_job_ends_as_it_would_by_itself(here, monkeypatch):
    def ends(act):
        act = Act(ACTS[act], stdin=open("words"))  # noqa: SIM115
        return act.warm, act.end()

    Path("words").write_text("a word\n")
    cold = {act: ends(act) for act in ACTS}
    with served(monkeypatch):
        found = {act: ends(act) for act in ACTS}
    assert not any(warm for warm, _ in cold.values()) and all(warm for warm, _ in found.values())
    for act in ACTS:
        assert text(found[act]) == text(cold[act]), act
    assert cold["3"][1] == (3, "out\n", "err\n") and cold["kill"][1][0] == -9


def text(ending):
    """Without the part of a traceback that lies above `main`."""
    _, (code, out, err) = ending
    return code, out, err.partition("distillbench/commands/")[2] or err


SLEEP = """
import time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.1)
    print("tidied", flush=True)
    raise
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=str)
def test_a_signal_to_a_job_does_what_it_would_by_itself(here, monkeypatch, number):
    def ends():
        act = Act(SLEEP)
        act.says("ready")
        assert not act.warm or os.getpgid(act.pid) != os.getpgid(act.job.pid), "a terminal's would reach both"
        act.job.send_signal(number)
        return act.warm, act.end()[:2], alive(act.pid)

    cold = ends()
    with served(monkeypatch):
        assert ends() == (True, *cold[1:])
    assert cold == (False, (130, "tidied\n") if number == signal.SIGINT else (-number, ""), False)


def test_a_job_that_is_killed_takes_its_child_along(here, monkeypatch):
    with served(monkeypatch):
        act = Act(SLEEP)
        act.says("ready")
        assert act.warm
        act.job.kill()
        eventually(lambda: not alive(act.pid), seconds=20)
        assert Act("print('on')").end()[1] == "on\n", "the warm process goes on"


def test_a_job_that_is_stopped_stops_its_child(here, monkeypatch):
    with served(monkeypatch):
        act = Act("print('ready', flush=True)\nimport time\ntime.sleep(0.5)\nprint('done')")
        act.says("ready")
        state = Path(f"/proc/{act.pid}/stat")
        act.job.send_signal(signal.SIGTSTP)
        eventually(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
        act.job.send_signal(signal.SIGCONT)
        assert act.warm and act.end()[:2] == (0, "done\n")


def test_a_signal_that_a_job_ignores_is_none_to_its_child(here, monkeypatch):
    with served(monkeypatch):
        act = Act("print('ready', flush=True)\ninput()", "sh", "-c", f"trap '' INT HUP; exec {' '.join(JOB)}", stdin=-1)
        act.says("ready")
        act.job.send_signal(signal.SIGINT)
        act.job.send_signal(signal.SIGHUP)
        act.job.stdin.write("\n")
        assert act.warm and act.end()[0] == 0


OTHER = {
    "an environment": ("env", "OMP_NUM_THREADS=2", *JOB),
    "a folder": ("sh", "-c", f"cd params; ln -sf ../act.py ../pid .; exec {' '.join(JOB)}"),
    "a mask": ("sh", "-c", f"umask 0070; exec {' '.join(JOB)}"),
    "an interpreter": ("python3", *JOB[1:]),
    "a command": (*JOB[:3], "ls"),
    "no socket": ("env", f"{warm.VARIABLE}=never", *JOB),
}


@pytest.mark.parametrize("other", OTHER)
def test_a_job_that_finds_something_else_runs_by_itself(here, monkeypatch, other):
    with served(monkeypatch):
        assert Act("").warm
        act = Act("", *OTHER[other])
        assert not act.warm and act.end()[0] == 0
        assert Act("", "env", "SHLVL=7", "_=x", "DISTILLBENCH_AGAIN=a", *JOB).warm


def test_code_that_was_edited_is_the_code_that_runs(here, monkeypatch):
    file = Path("src/distillbench/methods/kd.py")
    state = file.stat()
    with served(monkeypatch):
        assert Act("").warm
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        assert not Act("").warm, "edited"
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert Act("").warm
        file.with_name("mine.py").write_text("")
        assert not Act("").warm, "a new file"
        file.with_name("mine.py").unlink()
        assert Act("").warm
        file.write_text("pass")
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert not Act("").warm, "another size"


def test_the_process_ends_after_its_workflow_and_the_last_of_its_jobs(here, monkeypatch):
    with served(monkeypatch) as held:
        act = Act("print('ready', flush=True)\ninput()", stdin=-1)
        act.says("ready")
        folder = Path(os.environ[warm.VARIABLE]).parent
        assert act.warm and folder.stat().st_mode & 0o777 == 0o700
        os.close(held)
        eventually(lambda: not folder.exists())
        pid, late = act.pid, Act("")
        assert not late.warm and late.end()[0] == 0
        assert alive(pid) and len(warm_processes(Path.cwd())) == 2
        act.job.stdin.write("\n")
        assert act.end()[0] == 0
        eventually(lambda: not warm_processes(Path.cwd()))


def test_a_job_whose_warm_process_dies_runs_again_by_itself(here, monkeypatch):
    with served(monkeypatch):
        act = Act("print('ready', flush=True)\ninput()", stdin=-1)
        act.says("ready")
        pid = act.pid
        assert act.warm
        os.kill(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
        act.says("ready")
        assert not alive(pid) and not act.warm
        act.job.stdin.write("\n")
        assert act.end()[0] == 0


def test_a_process_with_threads_forks_nothing(here, monkeypatch):
    here.add("\nimport threading, time\nthreading.Thread(target=time.sleep, args=[60], daemon=True).start()\n", MAIN)
    with served(monkeypatch):
        act = Act("")
        assert not act.warm and act.end()[0] == 0


TIMES = ("seconds", "images_per_second", "finished", "peak_memory_mb")
SAYS = "        import sys\n        report(f\"torch {'torch' in sys.modules}\")\n"  # at the start of a job


def test_what_a_warm_job_makes_is_what_it_makes_by_itself(tmp_path, monkeypatch):
    project = new_project(tmp_path)
    draws = "        import numpy, torch\n        report(f'{numpy.random.rand()} {torch.rand(1).item()}')\n"
    project.edit("        report(run)\n", SAYS + draws, JOBS)
    enter(tmp_path, monkeypatch)
    succeeded(project.call("python", "-m", "distillbench", "data", "digits"))
    succeeded(project.call("python", "-m", "distillbench", "plan", "small"))
    ids = {row: run for run, row in project.index().items()}

    drawn = []  # without a seed, at the start of each job

    def made():
        for row in ("Teacher", "KD"):
            command = [*JOB[:-1], ids[row, 0]]
            log = succeeded(subprocess.run(command, capture_output=True, text=True, env=dict(os.environ)))
            assert log.startswith(f"torch {warm.VARIABLE in os.environ}\n")
            drawn.extend(log.splitlines()[1].split())
        for path in Path("results/runs").rglob("record.json"):
            path.write_text(str({name: value for name, value in read_json(path).items() if name not in TIMES}))
        found = {path: path.read_bytes() for path in Path("results/runs").rglob("*.*")}
        shutil.rmtree("results/runs")
        return found

    cold = made()
    drawn.clear()
    with served(monkeypatch):
        assert made() == cold
    assert len(set(drawn)) == 4
    assert len(cold) == 2 * (5 + 2 * 2)


def test_a_workflow_has_a_warm_process_for_two_runs_or_more(tmp_path, monkeypatch):
    project = new_project(tmp_path)
    project.edit("        report(run)\n", SAYS + "        raise UserError('that was all')\n", JOBS)
    project.edit("onerror:\n    write_partial_reports()\n", "", "Snakefile")

    def served(only):
        assert project.snakemake("--config", "suite=small", f"only={only}").returncode == 1
        return sorted(path.read_text().splitlines()[0] for path in tmp_path.glob("results/logs/run/**/*.log"))

    assert served("NONE/*/s0") == ["torch False"]
    assert served("NONE") == ["torch True", "torch True"]
    monkeypatch.setenv(warm.VARIABLE, "never")
    assert served("NONE") == ["torch False", "torch False"]


def test_a_workflow_that_is_killed_leaves_jobs_that_end_and_nothing_else(tmp_path, monkeypatch):
    project = new_project(tmp_path)
    enter(tmp_path, monkeypatch)
    command = ["snakemake", "--cores", "2", "--config", "suite=small", "only=NONE"]
    workflow = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: len(warm_processes(tmp_path)) == 3)
    workflow.kill()
    workflow.wait()
    eventually(lambda: not warm_processes(tmp_path))
    assert len(project.trained()) == 2

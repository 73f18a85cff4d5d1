"""A process that has imported what a job needs, and forks the jobs of one local workflow.

`start` is called by the workflow, `ask` by each of its jobs (`python -m distillbench`); this file, run as a program, is
the process between them. A job that finds anything else than it does (`situation`), or no such process, runs by itself.

The socket has messages with limits (SOCK_SEQPACKET). A job sends its situation and arguments with its three standard
streams, then the numbers of signals that it gets; it is sent TAKEN and, at the end, the status of its child. A
connection that is closed before is a refusal. A child whose job is gone is killed, and so are all with this process.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress

VARIABLE = "DISTILLBENCH_WARM"  # path of the socket; `never`, for the workflow: start no such process
SERVED = {"complete", "train", "table"}  # they import torch, and hold a claim: begun twice they compute once
# What a shell changes, and what is read by jobs on other machines only.
IGNORED = {VARIABLE, "DISTILLBENCH_AGAIN", "_", "SHLVL", "PWD", "OLDPWD"}
NEEDED = ("commands", "jobs", "engine.run", "evaluation.predictions", "evaluation.measure", "evaluation.tabulate")
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
TAKEN = b"taken"
LONGEST = 2**20  # bytes of a message
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
PATIENCE = 60  # seconds that a job waits to be taken: in the first few this process imports


def situation():
    """What a job finds when it starts, as JSON: interpreter, folder, environment, and the state of the code's files."""
    os.umask(umask := os.umask(0o77))
    variables = {name: value for name, value in os.environ.items() if name not in IGNORED}
    files = [path for path in sys.path if path.endswith("-packages")]  # changed by whoever installs another torch
    for folder, _, names in os.walk(os.path.dirname(__file__)):
        files += [f"{folder}/{name}" for name in names if not name.endswith(".pyc")]
    states = {path: (state.st_mtime_ns, state.st_size) for path in files if (state := _state(path))}
    return json.dumps([sys.executable, os.getcwd(), umask, variables, states], sort_keys=True)


def _state(path):
    with suppress(FileNotFoundError):  # an editor's, gone since
        return os.stat(path)


def start(environment):
    """Start the process for jobs with this environment ({name: value}), and tell them where it is.

    It ends once this process has ended, or has closed the descriptor that is returned, and the last of its jobs, too.
    Raises OSError where it cannot be started.
    """
    import atexit
    import shutil
    import subprocess
    import tempfile

    folder = tempfile.mkdtemp(prefix="distillbench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = f"{folder}/socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(4096)  # here: jobs that start before it has imported anything wait for it
        held, end = socket.socketpair()
        with end:  # as all three streams: nothing that could be sought in, whatever a child gets in its place
            subprocess.Popen(
                ["python", "-m", "distillbench.warm", str(listener.fileno())],
                env=environment,
                stdin=end,
                stdout=end,
                stderr=end,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # else a terminal's signals reach children twice: jobs pass them on
            )
    os.environ[VARIABLE] = path
    return held.detach()


def ask(arguments):
    """Have the warm process run a command, and end as it ends. Returns where it is to be run here."""
    if VARIABLE not in os.environ or not SERVED.intersection(arguments[:1]):
        return
    got, replaced = [], {}

    def pass_on(number, frame):
        got.append(number)
        with suppress(OSError):
            connection.send(bytes([number]))

    def pause(number, frame):  # a child in another session is not stopped by a terminal
        with suppress(OSError):
            connection.send(bytes([signal.SIGSTOP]))
        os.kill(os.getpid(), signal.SIGSTOP)
        with suppress(OSError):
            connection.send(bytes([signal.SIGCONT]))

    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(os.environ[VARIABLE])
        for number in (*PASSED_ON, signal.SIGTSTP):
            if signal.getsignal(number) != signal.SIG_IGN:
                replaced[number] = signal.signal(number, pause if number == signal.SIGTSTP else pass_on)
        socket.send_fds(connection, [json.dumps([situation(), arguments]).encode()], [0, 1, 2])
        if connection.recv(LONGEST) == TAKEN:
            connection.settimeout(None)
            if status := connection.recv(LONGEST):
                _end(os.waitstatus_to_exitcode(int(status)))
    for number, handler in replaced.items():
        signal.signal(number, handler)
    for number in got:  # meant for what runs now
        os.kill(os.getpid(), number)


def _end(code):
    """End with an exit code or, where it is negative, by a signal."""
    if code < 0:
        with suppress(OSError):  # of SIGKILL there is no other handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def serve(listener):
    """Fork a child for each job until the workflow has ended, and with it its jobs.

    Returns None then; in a child, the arguments of its command.
    """
    import gc
    import select
    import shutil
    from importlib import import_module

    from distillbench.environment import collect_seldom

    mine = situation()
    collect_seldom()
    for name in NEEDED:
        import_module(f"distillbench.{name}")
    if len(os.listdir("/proc/self/task")) > 1:
        return None  # a child has only the thread that forked it: what others had locked would stay so
    gc.freeze()  # for children to share it
    ended, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    jobs, workflow = {}, 0  # {connection: pid, or None as long as nothing came}; standard input
    doors = [listener, workflow]
    while doors or jobs:
        for ready in select.select([ended, *doors, *jobs], [], [])[0]:
            if ready is listener:
                jobs[listener.accept()[0]] = None
            elif ready == workflow:
                shutil.rmtree(os.path.dirname(listener.getsockname()), ignore_errors=True)
                listener.close()
                doors = []
            elif ready is ended:
                ended.recv(LONGEST)
                _report(jobs)
            elif jobs.get(ready):
                _hand_on(jobs, ready)
            elif ready in jobs and (command := _fork(jobs, ready, mine)) is not None:
                return command  # all sockets close, as nothing refers to them any more
    return None


def _fork(jobs, connection, mine):
    """Begin a job that finds what this process does, refuse another. Returns its command, in the child."""
    message, streams = _received(connection)
    found, command = json.loads(message) if message else (None, None)
    pid = None
    with suppress(OSError):  # too many processes: the job runs by itself, or fails as it would have
        pid = os.fork() if found == mine else None
    if pid == 0:
        _become(streams)
        return command
    if pid:
        jobs[connection] = pid
        with suppress(OSError):  # the job is gone: its connection tells so
            connection.send(TAKEN)
    else:
        del jobs[connection]
        connection.close()
    for stream in streams:
        os.close(stream)
    return None


def _become(streams):
    """Be what the job's own process would be: with its streams, and without the handlers of this one."""
    import ctypes

    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if "torch" in sys.modules:  # who draws without a stream of the run draws what no other child does
        import numpy
        import torch

        numpy.random.seed()
        torch.default_generator.seed()


def _hand_on(jobs, connection):
    """Send a child the signals of its job, or end it where that is gone."""
    numbers, _ = _received(connection)
    for number in numbers or [signal.SIGKILL]:
        os.kill(jobs[connection], number)
    if not numbers:
        del jobs[connection]
        connection.close()


def _report(jobs):
    """Tell the jobs whose children have ended how they did."""
    connections = {pid: connection for connection, pid in jobs.items()}
    with suppress(ChildProcessError):
        while (ending := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ending
            if connection := connections.get(pid):  # else it was gone before
                with suppress(OSError):
                    connection.send(str(status).encode())
                del jobs[connection]
                connection.close()


def _received(connection):
    """(message, descriptors); of a job that is gone b"" and none."""
    try:
        return socket.recv_fds(connection, LONGEST, 3)[:2]
    except OSError:
        return b"", []


if __name__ == "__main__":
    command = serve(socket.socket(fileno=int(sys.argv[1])))
    if command is not None:
        from distillbench.commands import main

        sys.argv[1:] = command
        sys.exit(main())

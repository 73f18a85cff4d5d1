"""The processes of a rung: started once, told what to do through a pipe, each answer awaited."""

import multiprocessing

from distillbench.errors import UserError, one_line


class Refused(Exception):
    """Why a rung cannot be had here."""


class Broken(Exception):
    """What a rung's process raised."""


class Processes:
    """The processes of one rung, which do the same at the same time. Use as a context."""

    def __init__(self, job):
        """job: `experiment.Job`. Raises as `ask`."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([f"distillbench.benchmark.{name}" for name in ("plain_steps", "engine_steps")])
        self.running = []
        for _ in range(job.rung.processes):
            here, there = context.Pipe()
            arguments = (there, job, multiprocessing.get_start_method())
            process = context.Process(target=_serve, args=arguments)  # no daemon, which may have no loader
            process.start()
            there.close()
            self.running.append((process, here))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process, pipe in self.running:
            pipe.close()
            process.join(10)
            process.kill()

    def ready(self):
        """Wait until all are built. Raises as `ask`."""
        return self._answers()

    def ask(self, function, *arguments):
        """What a method of the processes' `steps.Steps` returns, of each. Raises Refused or Broken."""
        for _, pipe in self.running:
            pipe.send((function, arguments))
        return self._answers()

    def _answers(self):
        return [_answer(pipe) for _, pipe in self.running]


def _answer(pipe):
    try:
        kind, value = pipe.recv()
    except EOFError:
        raise Broken("its process died") from None
    if kind == "answer":
        return value
    raise {"refused": Refused, "broken": Broken}[kind](value)


def _serve(pipe, job, start_method):
    """Build the steps of a job and answer until the other side closes the pipe.

    start_method: of the workers of a loader, that of a usual process; here it would be that of this one.
    """
    multiprocessing.set_start_method(start_method, force=True)
    try:
        steps = _steps_of(job)
        pipe.send(("answer", None))
        while True:
            function, arguments = pipe.recv()
            pipe.send(("answer", getattr(steps, function)(*arguments)))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except UserError as error:
        pipe.send(("refused", one_line(error)))
    except Exception as error:  # whatever is wrong with a rung, it is this rung's
        pipe.send(("broken", one_line(f"{type(error).__name__}: {' '.join(str(error).split())}")))


def _steps_of(job):
    if job.rung.kind == "plain":
        from distillbench.benchmark.plain_steps import Plain as kind
    elif job.rung.kind == "engine":
        from distillbench.benchmark.engine_steps import Engine as kind
    elif job.rung.kind == "table":
        from distillbench.benchmark.table_steps import Table as kind
    else:
        from distillbench.benchmark.upstream import Upstream as kind
    return kind(job)

"""An mdistiller checkout as a rung: its own networks, distiller, data and training step, none of it changed.

Without CUDA its calls of `.cuda()` are made to do nothing, from outside; the rung's name says so.
"""

import os
import subprocess
import sys
import types
import warnings
from collections import defaultdict
from pathlib import Path

import torch
from torchvision.datasets import CIFAR100

from distillbench.benchmark.experiment import EPOCH, TEACHER, feed_of, parts, student_of
from distillbench.benchmark.plain import endless
from distillbench.benchmark.steps import Loading
from distillbench.errors import UserError, one_line

SHIM = ", cpu shim"


def checkout(folder, device):
    """(absolute folder, name of the rung) of an unmodified checkout of mdistiller. Raises UserError for others."""
    problem = "not a checkout of mdistiller"
    if (Path(folder) / "mdistiller" / "distillers").is_dir():
        try:
            commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "-uno")
        except (OSError, subprocess.CalledProcessError) as error:
            problem = f"git does not say its commit ({one_line(getattr(error, 'stderr', '') or error)})"
        else:
            if not changes:
                return os.path.abspath(folder), f"mdistiller {commit[:7]}{'' if device.type == 'cuda' else SHIM}"
            problem = f"changed since its commit ({changes.split()[1]})"
    raise UserError(f"--upstream {folder}: {problem}; give an unmodified `git clone` of it")


def _git(folder, *arguments):
    command = ("git", "-C", str(folder), *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Upstream(Loading):
    """`train_iter` of mdistiller's trainer for the job's method, with its default settings and the job's schedule."""

    def __init__(self, job):
        super().__init__(job)
        if job.rung.threads:
            torch.set_num_threads(job.rung.threads)
        self.specification = job.specification
        self._import()
        torch.backends.cudnn.benchmark = True  # as its tools/train.py does
        self.feed, self.trainer = feed_of(job, self.specification), self._trainer()

    def _import(self):
        sys.dont_write_bytecode = True  # the checkout stays as it is
        sys.path.insert(0, self.job.upstream)
        warnings.filterwarnings("ignore", module="torch.nn._reduction")  # of the spelling of a reduction
        if "tensorboardX" not in sys.modules:
            sys.modules["tensorboardX"] = _tensorboard()
        if self.device.type == "cpu":
            torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self
            torch.cuda.is_available, torch.cuda.device_count = lambda: False, lambda: 0
        try:
            from mdistiller.dataset import cifar100
            from mdistiller.distillers import distiller_dict
            from mdistiller.engine import trainer_dict
            from mdistiller.engine.cfg import CFG
            from mdistiller.engine.utils import AverageMeter
            from mdistiller.models import cifar_model_dict
        except ImportError as error:
            raise UserError(f"mdistiller cannot be imported here: {error}") from None
        self.data, self.configuration, self.meter = cifar100, CFG.clone(), AverageMeter
        self.models, self.distillers, self.trainers = cifar_model_dict, distiller_dict, trainer_dict
        cifar100.get_data_folder = lambda: self.job.archive.root
        self.job.archive.declare(CIFAR100)

    def _trainer(self):
        configuration, method = self._configured(), self.specification["method"]["name"]
        teacher, student = (self.models[name][0](num_classes=100) for name in self.job.pair)
        teacher.load_state_dict(torch.load(self.job.folder / TEACHER, weights_only=True))
        student.load_state_dict(student_of(self.job).state_dict())
        distiller = torch.nn.DataParallel(self.distillers[method](student, teacher, configuration).cuda())
        distiller.train()
        kind = self.trainers[configuration.SOLVER.TRAINER]
        return kind("bench", distiller, None, None, configuration)

    def _configured(self):
        """Its configuration of the job, and the schedule and hyper-parameters of the specification."""
        specification, configuration = self.specification, self.configuration
        method, trainer, schedule = (specification[part] for part in ("method", "trainer", "schedule"))
        unknown = [name for name in self.job.pair if name not in self.models]
        unknown += [name for name in specification.transforms]
        unknown += [method["name"]] * (method["name"] not in self.distillers)
        unknown += [trainer["name"]] * (trainer["name"] not in self.trainers)
        if unknown:
            raise UserError(f"mdistiller has no {unknown[0]}")
        configuration.DISTILLER.TYPE, configuration.SOLVER.TRAINER = method["name"], trainer["name"]
        configuration.LOG.PREFIX, configuration.LOG.WANDB = str(self.job.folder / "mdistiller"), False
        configuration.SOLVER.update({name: schedule[name] for name in ("LR", "MOMENTUM", "WEIGHT_DECAY")})
        for name, value in method["parameters"].items():
            *nodes, key = method["name"], *name.split(".")
            node = configuration
            for step in nodes:
                node = node[step]
            node[key] = value
        if trainer["name"] == "dot":
            configuration.SOLVER.DOT.DELTA = trainer["parameters"]["DELTA"]
        return configuration

    def losses(self, size):
        for count in parts(self.feed, self.feed.begin, size):
            batch = self.feed.batch(count)
            self.feed.advance(count)
            meters = self._step((*batch.views, batch.target, batch.index))
            yield float(meters["losses"].val)

    def steps(self, size):
        loader, *_ = self.data.get_cifar100_dataloaders(size, size, self.workers)
        for data in endless(loader):
            self._step(data)
            yield len(data[1])

    def _step(self, data):
        meters = defaultdict(self.meter)
        self.trainer.train_iter(data, EPOCH, meters)
        return meters


def _tensorboard():
    """A stand-in for tensorboardX, which mdistiller imports and writes to between epochs."""
    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = lambda *_, **__: None
    return module

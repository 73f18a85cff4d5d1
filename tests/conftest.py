"""Fixtures of several test files."""

import pytest
import torch
from standins import specification_of

from distillbench.data import Images, digits

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def images():
    """The digits, as the specifications name them."""
    return Images(*digits.arrays())


@pytest.fixture(scope="session")
def specify():
    return specification_of

"""Prepared data: mapped as they lie in the file, refused where the file is not what it should be."""

import io
import warnings
import zipfile

import numpy as np
import pytest
import torch

from distillbench import data
from distillbench.config import components
from distillbench.errors import UserError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "digits.npz"
    data.prepare("digits", path)
    return path


def test_prepared_images_are_mapped_from_a_file_that_numpy_reads(path, images):
    with np.load(path) as archive:
        assert all(np.array_equal(archive[name], array) for name, array in images.arrays.items())
        assert str(archive["sha256"]) == images.digest
    loaded = data.load("digits", path)
    assert isinstance(loaded.train_images, np.memmap) and isinstance(loaded.test_images, np.memmap)
    assert all(array.flags.aligned for array in loaded.arrays.values())
    assert data.digest_of(loaded.arrays) == loaded.digest == components.datasets()["digits"]["sha256"]


def test_tensors_of_prepared_images_cannot_change_the_file(path, images):
    loaded = data.load("digits", path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensors = [torch.from_numpy(array) for array in loaded.arrays.values()]
    for tensor in tensors:
        tensor.zero_()
    assert data.digest_of(data.load("digits", path).arrays) == images.digest


def test_a_file_from_before_is_read_and_its_images_are_compared(path, images):
    np.savez_compressed(path, **images.arrays)
    assert data.load("digits", path).digest == images.digest
    changed = images.test_images.copy()
    changed[-1, -1, -1, -1] ^= 1
    np.savez_compressed(path, **{**images.arrays, "test_images": changed})
    with pytest.raises(UserError, match="other images than digits declares"):
        data.load("digits", path)


def stated(images, **others):
    return {**images.arrays, "sha256": images.digest, **others}


def zipped(members):
    """The bytes of an .npz file of {name: array, or the bytes of its member}."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in members.items():
            member = io.BytesIO()
            np.save(member, array) if not isinstance(array, bytes) else member.write(array)
            archive.writestr(f"{name}.npy", member.getvalue())
    return content.getvalue()


def saved(array, shape):
    """The bytes of an .npy file whose header says another shape than the array has."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return content.getvalue() + array.tobytes()


def compressed(images):
    content = io.BytesIO()
    np.savez_compressed(content, **stated(images))
    return content.getvalue()


SHAPE = (300, 16, 16, 3)
DAMAGED = {
    "empty": lambda images, whole: b"",
    "text": lambda images, whole: b"no zip",
    "an array": lambda images, whole: saved(images.train_images, (300, 16, 16, 3)),
    "a half": lambda images, whole: whole[: len(whole) // 2],
    "without its end": lambda images, whole: whole[:-1],
    "of other things": lambda images, whole: zipped({"arr_0": images.test_labels}),
    "without labels": lambda images, whole: zipped({n: a for n, a in stated(images).items() if n != "test_labels"}),
    "fewer labels": lambda images, whole: zipped(stated(images, test_labels=images.test_labels[1:])),
    "grey": lambda images, whole: zipped(stated(images, test_images=images.test_images[..., :1])),
    "of other numbers": lambda images, whole: zipped(stated(images, test_images=images.test_images / 255)),
    "labels in 32 bits": lambda images, whole: zipped(stated(images, test_labels=images.test_labels.astype("int32"))),
    "too small": lambda images, whole: zipped(stated(images, train_images=saved(images.train_images[1:], SHAPE))),
    "too large": lambda images, whole: zipped(stated(images, train_images=saved(images.test_images, SHAPE))),
    "compressed": lambda images, whole: compressed(images),
    "objects": lambda images, whole: zipped(stated(images, sha256=b"\x93NUMPY\x01\x00")),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_or_foreign_file_is_refused_in_one_line(path, images, damage):
    content = DAMAGED[damage](images, path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"(not a prepared|other images).*remove it and make it with") as refused:
        data.load("digits", path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    assert path.read_bytes() == content


def test_images_that_state_another_digest_are_refused(path, images):
    path.write_bytes(zipped(stated(images, sha256="0" * 64)))
    with pytest.raises(UserError, match=r"other images than digits declares.*000000000000"):
        data.load("digits", path)

"""CIFAR-10: 60 000 images of 32x32 in 10 classes (Krizhevsky 2009), 50 000 for training, from the python archive."""

from distillbench.data import cifar
from distillbench.data.copies import Published

name = "cifar10"
version = 1
bibtex = """
@techreport{krizhevsky2009cifar,
  title = {Learning Multiple Layers of Features from Tiny Images},
  author = {Krizhevsky, Alex},
  institution = {University of Toronto},
  year = {2009}
}"""
md5 = "c58f30108f718f92721af3b95e74349a"  # of cifar-10-python.tar.gz
num_train = 50000
num_test = 10000
zoo = "cifar"
num_classes = 10
image_size = 32
mean = (0.4914, 0.4822, 0.4465)
std = (0.2470, 0.2435, 0.2616)
augmentation = {"kind": "crop_flip", "crop_padding": 4, "flip": True}

published = Published(
    archive="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    files={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
)
layout = cifar.Layout(
    train=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
    test=("test_batch",),
    labels="labels",
    meta="batches.meta",
    classes="label_names",
)


def arrays(copy):
    return cifar.arrays(copy, layout)

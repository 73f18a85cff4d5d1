"""CIFAR-100: 60 000 images of 32x32 in 100 classes (Krizhevsky 2009), 50 000 for training, from the python archive.

Constants and training transforms are mdistiller's (dataset/cifar100.py).
"""

from distillbench.data import cifar
from distillbench.data.copies import Published

name = "cifar100"
version = 1
bibtex = """
@techreport{krizhevsky2009cifar,
  title = {Learning Multiple Layers of Features from Tiny Images},
  author = {Krizhevsky, Alex},
  institution = {University of Toronto},
  year = {2009}
}"""
md5 = "eb9058c3a382ffc7106e4002c42a8d85"  # of cifar-100-python.tar.gz
num_train = 50000
num_test = 10000
zoo = "cifar"
num_classes = 100
image_size = 32
mean = (0.5071, 0.4867, 0.4408)
std = (0.2675, 0.2565, 0.2761)
augmentation = {"kind": "crop_flip", "crop_padding": 4, "flip": True}

published = Published(
    archive="cifar-100-python.tar.gz",
    folder="cifar-100-python",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    files={
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
)
layout = cifar.Layout(train=("train",), test=("test",), labels="fine_labels", meta="meta", classes="fine_label_names")


def arrays(copy):
    return cifar.arrays(copy, layout)

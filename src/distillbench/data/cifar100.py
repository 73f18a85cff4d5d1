"""CIFAR-100: 60 000 images of 32x32 in 100 classes (Krizhevsky 2009), 50 000 for training, from the python archive.

Constants and training transforms are mdistiller's (dataset/cifar100.py).
"""

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
zoo = "cifar"
num_classes = 100
image_size = 32
mean = (0.5071, 0.4867, 0.4408)
std = (0.2675, 0.2565, 0.2761)
augmentation = {"kind": "crop_flip", "crop_padding": 4, "flip": True}

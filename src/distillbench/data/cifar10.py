"""CIFAR-10: 60 000 images of 32x32 in 10 classes (Krizhevsky 2009), 50 000 for training, from the python archive."""

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
zoo = "cifar"
num_classes = 10
image_size = 32
mean = (0.4914, 0.4822, 0.4465)
std = (0.2470, 0.2435, 0.2616)
augmentation = {"kind": "crop_flip", "crop_padding": 4, "flip": True}

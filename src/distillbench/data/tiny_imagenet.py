"""Tiny-ImageNet: 110 000 images of 64x64 in 200 classes of ImageNet (Le, Yang 2015), 100 000 for training.

Constants and training transforms are mdistiller's (dataset/tiny_imagenet.py): a rotation, no crop.
"""

name = "tiny_imagenet"
version = 1
bibtex = """
@techreport{le2015tiny,
  title = {Tiny {ImageNet} Visual Recognition Challenge},
  author = {Le, Ya and Yang, Xuan},
  institution = {Stanford University, CS 231N},
  year = {2015}
}"""
md5 = "90528d7ca1a48142e341f4ef8d21d0de"  # of tiny-imagenet-200.zip
num_train = 100000
zoo = "tiny_imagenet"
num_classes = 200
image_size = 64
mean = (0.4802, 0.4481, 0.3975)
std = (0.2302, 0.2265, 0.2262)
augmentation = {"kind": "rotation_flip", "degrees": 20, "interpolation": "nearest", "flip": True}

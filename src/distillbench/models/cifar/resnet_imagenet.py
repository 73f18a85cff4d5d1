"""The ImageNet residual networks (He et al. 2016, table 1) for images of 32x32: a 3x3 stem, no pooling behind it.

State-dict keys, features and arithmetic are those of mdistiller/models/cifar/resnetv2.py.
"""

from distillbench.models.residual import ResNet

name = "resnet_imagenet"
version = 1
bibtex = """
@inproceedings{he2016deep,
  title = {Deep Residual Learning for Image Recognition},
  author = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  pages = {770--778},
  year = {2016}
}"""
networks = {
    "ResNet18": {"block": "basic", "depths": (2, 2, 2, 2)},
    "ResNet50": {"block": "bottleneck", "depths": (3, 4, 6, 3)},
}


def build(num_classes, block, depths):
    return ResNet(block, (64, 64, 128, 256, 512), depths, num_classes, projection="shortcut", head="linear")

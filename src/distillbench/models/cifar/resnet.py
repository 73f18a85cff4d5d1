"""The CIFAR residual networks of the distillation literature (He et al. 2016, section 4.2, as in RepDistiller).

State-dict keys, features and arithmetic are those of mdistiller/models/cifar/resnet.py. The published pooling
of 8x8 maps is adaptive here: the same for 32x32 images, and other sizes work.
"""

from distillbench.models.residual import ResNet

name = "resnet"
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
    "resnet8": {"depth": 8, "widths": (16, 16, 32, 64)},
    "resnet14": {"depth": 14, "widths": (16, 16, 32, 64)},
    "resnet20": {"depth": 20, "widths": (16, 16, 32, 64)},
    "resnet32": {"depth": 32, "widths": (16, 16, 32, 64)},
    "resnet44": {"depth": 44, "widths": (16, 16, 32, 64)},
    "resnet56": {"depth": 56, "widths": (16, 16, 32, 64)},
    "resnet110": {"depth": 110, "widths": (16, 16, 32, 64)},
    "resnet8x4": {"depth": 8, "widths": (32, 64, 128, 256)},
    "resnet32x4": {"depth": 32, "widths": (32, 64, 128, 256)},
}


def build(num_classes, depth, widths):
    return ResNet("basic", widths, [(depth - 2) // 6] * 3, num_classes)

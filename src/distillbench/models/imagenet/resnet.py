"""The ImageNet residual networks (He et al. 2016, table 1).

State-dict keys, features and arithmetic are those of mdistiller/models/imagenet/resnet.py. The keys are torchvision's,
whose published weights fit.
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
    "ResNet18": {"block": "basic", "depths": (2, 2, 2, 2)},
    "ResNet34": {"block": "basic", "depths": (3, 4, 6, 3)},
    "ResNet50": {"block": "bottleneck", "depths": (3, 4, 6, 3)},
    "ResNet101": {"block": "bottleneck", "depths": (3, 4, 23, 3)},
}


def build(num_classes, block, depths):
    return ResNet(block, (64, 64, 128, 256, 512), depths, num_classes, large=True)

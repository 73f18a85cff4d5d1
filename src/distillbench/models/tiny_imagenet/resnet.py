"""ResNet18 (He et al. 2016) for images of 64x64: that for 32x32, on maps of twice the size."""

from distillbench.models.cifar import resnet_imagenet

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
networks = {"ResNet18": {"block": "basic", "depths": (2, 2, 2, 2)}}
build = resnet_imagenet.build

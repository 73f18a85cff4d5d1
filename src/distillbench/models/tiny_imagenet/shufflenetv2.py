"""ShuffleNetV2 (Ma et al. 2018) for images of 64x64: that for 32x32, whose pooling takes maps of any size.

The published network fails on images of 64x64; its state-dict keys are the same, and so is its arithmetic at 32x32.
"""

from distillbench.models.cifar import shufflenetv2

name = "shufflenetv2"
version = 1
bibtex = """
@inproceedings{ma2018shufflenet,
  title = {{ShuffleNet V2}: Practical Guidelines for Efficient {CNN} Architecture Design},
  author = {Ma, Ningning and Zhang, Xiangyu and Zheng, Hai-Tao and Sun, Jian},
  booktitle = {European Conference on Computer Vision},
  pages = {116--131},
  year = {2018}
}"""
networks = {"ShuffleV2": {"widths": (24, 116, 232, 464, 1024), "depths": (4, 8, 4)}}
build = shufflenetv2.build

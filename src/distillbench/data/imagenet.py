"""ImageNet: the images of ILSVRC2012 in 1 000 classes (Russakovsky et al. 2015), its validation images for testing.

Constants and training transforms are mdistiller's (dataset/imagenet.py). It is published as folders of JPEG files, of
which no digest is known: the numbers of images are what is checked.
"""

name = "imagenet"
version = 1
bibtex = """
@article{russakovsky2015imagenet,
  title = {{ImageNet} Large Scale Visual Recognition Challenge},
  author = {Russakovsky, Olga and Deng, Jia and Su, Hao and Krause, Jonathan and Satheesh, Sanjeev and Ma, Sean and
            Huang, Zhiheng and Karpathy, Andrej and Khosla, Aditya and Bernstein, Michael and Berg, Alexander C. and
            Fei-Fei, Li},
  journal = {International Journal of Computer Vision},
  volume = {115},
  number = {3},
  pages = {211--252},
  year = {2015}
}"""
num_train = 1281167
num_test = 50000
zoo = "imagenet"
num_classes = 1000
image_size = 224
mean = (0.485, 0.456, 0.406)
std = (0.229, 0.224, 0.225)
augmentation = {
    "kind": "resized_crop_flip",
    "scale": [0.08, 1.0],
    "ratio": [0.75, 1.3333333333333333],
    "interpolation": "bilinear",
    "flip": True,
}

"""The handwritten digits that scikit-learn carries (UCI, Alpaydin and Kaynak 1998): 1 797 real images of 8x8.

They become 16x16 RGB by repeating pixels. The split is fixed and small on purpose: in each class the 30
images whose position in the set has the smallest SHA-256 are for training (300), the other 1 497 for testing.
With three times as many training images no difference between methods is left to see.
"""

import hashlib

import numpy as np

name = "digits"
version = 1
bibtex = """
@misc{alpaydin1998digits,
  title = {Optical Recognition of Handwritten Digits},
  author = {Alpaydin, E. and Kaynak, C.},
  howpublished = {UCI Machine Learning Repository},
  year = {1998}
}"""
sha256 = "48db201551853b5cc0d8d9d0943637ae80d74ad64e7e90d52f8f4b8eb327e2f3"
num_train = 300
zoo = "cifar"
num_classes = 10
image_size = 16
mean = (0.3056, 0.3056, 0.3056)
std = (0.3760, 0.3760, 0.3760)
augmentation = {"crop_padding": 4, "flip": False}  # 9 x 9 = 81 views of an image

TRAIN_PER_CLASS = 30


def arrays():
    """(train_images, train_labels, test_images, test_labels)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(images.repeat(2, axis=1).repeat(2, axis=2)[..., None], 3, axis=3)
    labels = digits.target.astype(np.int64)
    train = _training_positions(labels)
    return images[train], labels[train], images[~train], labels[~train]


def _training_positions(labels):
    """Boolean [N]: the first TRAIN_PER_CLASS images of each class in the order of their position's SHA-256."""
    order = sorted(range(len(labels)), key=lambda i: hashlib.sha256(f"digits {i}".encode()).digest())
    train = np.zeros(len(labels), dtype=bool)
    for label in range(num_classes):
        train[[i for i in order if labels[i] == label][:TRAIN_PER_CLASS]] = True
    return train

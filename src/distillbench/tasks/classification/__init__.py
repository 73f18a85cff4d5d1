"""Image classification: one label an image; predictions are logits."""

name = "classification"
version = 1
headline = "top1"
protocol = {"version": version, "transform": "published test transform", "logits": "float16"}

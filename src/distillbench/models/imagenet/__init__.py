"""Networks for images of 224x224, as mdistiller has them."""

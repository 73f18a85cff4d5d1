"""Networks for images of 64x64, as mdistiller has them."""

"""Networks for images of 32x32, as the distillation literature has them; they take other sizes, too."""

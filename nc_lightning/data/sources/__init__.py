"""The data sets: embedded ones, arrays, folders of images, and those of torchvision."""

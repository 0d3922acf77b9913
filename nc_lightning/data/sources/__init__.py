"""Data modules: embedded data sets, arrays, folders of images, and torchvision's data sets."""

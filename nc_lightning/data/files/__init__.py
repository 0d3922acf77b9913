"""Read files of images and labels, and refuse ambiguous ones."""

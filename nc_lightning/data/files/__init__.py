"""Files of images and labels, read as people mean them or refused."""

"""Files that are written whole or checked when read: checkpoints, run folders, features."""

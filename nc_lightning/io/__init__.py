"""Files that are written whole: checkpoints, the folder of a run, the last checkpoint of one that was stopped."""

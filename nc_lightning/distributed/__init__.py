"""Several processes: what they ask of each other, the batch they share, BatchNorm, devices, who started whom."""

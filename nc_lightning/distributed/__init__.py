"""Several processes: collectives, the global batch, synchronized BatchNorm, devices and the launcher."""

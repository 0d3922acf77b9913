"""Sweeps: a plan of cells, engines that train them, and their results."""

"""Sweeps: a plan of cells, engines that train them, and what has come of it."""

"""Engines that compute the losses: autograd for any link, tiles for the exact InfoNCE, and sampled negatives.

Equation numbers refer to docs/explanations/exact-loss.md.
"""

"""How the losses are computed: autograd for any link, tiles for the exact InfoNCE, and drawn negatives.

Equations are those of docs/explanations/exact-loss.md.
"""

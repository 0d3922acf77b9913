"""How the losses are computed: autograd for any link, tiles for the exact InfoNCE, and drawn negatives."""

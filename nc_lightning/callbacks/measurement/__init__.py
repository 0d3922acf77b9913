"""Parts of a measurement: samples, features, weights, and the callbacks that act on it."""

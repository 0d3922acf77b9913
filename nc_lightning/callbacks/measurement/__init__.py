"""One measurement: which samples, which features, with which weights, and who acts on it."""

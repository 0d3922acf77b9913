"""TensorBoard and the report: charts, figures, the projector, and the loggers that show them."""

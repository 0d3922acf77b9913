"""TensorBoard dashboard and report: charts, figures, projector, and the loggers that show them."""

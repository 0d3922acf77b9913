"""Callbacks that let a run stop, resume, survive bad steps and never hang."""

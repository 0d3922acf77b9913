"""What lets a run stop, resume, survive bad steps and never hang."""

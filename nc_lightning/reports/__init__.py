"""Reports of finished runs, as an HTML page and as a table."""

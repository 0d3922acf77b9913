"""A finished run on one page and in one table."""

"""Other libraries' parts in our trainings."""

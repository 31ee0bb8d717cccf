"""A run's folder → one page: `page` writes it, `table` and the figures make its parts."""

"""A report on a store as one HTML page: gathered in one place, drawn in another."""

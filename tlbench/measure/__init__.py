"""A cell in, a record out."""

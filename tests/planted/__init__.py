"""Broken variants of the product, each of which the suite must catch in seconds."""

"""Experiments: from names and settings to objects, trained and recorded."""

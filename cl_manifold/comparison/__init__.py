"""Comparisons: several strategies and seeds on one stream, one table."""

"""README and docs/: what their blocks run, and the tables that are written from the code."""

"""The plugin inside other people's strategies, networks and losses: a matrix of small runs.

`python -m tests.compatibility` writes docs/compatibility.md from the same cells as the tests.
"""

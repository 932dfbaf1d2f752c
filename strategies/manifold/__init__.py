"""The weight manifold inside any Avalanche strategy: a plugin and what it is made of."""

"""The methods that a run can name: each a class whose fields are its settings."""

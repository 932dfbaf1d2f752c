"""A user's own files as streams: read, understood, divided, scaled."""

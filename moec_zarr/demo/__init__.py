"""A demonstration on simulated weather, from arrays to pictures."""

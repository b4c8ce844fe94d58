"""How a conversion is done: tasks for the workers of a cluster, and the store that they write to."""

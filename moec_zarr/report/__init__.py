"""How close a decoded array is to its original, and what a stream holds."""

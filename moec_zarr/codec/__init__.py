"""Array to stream and back."""

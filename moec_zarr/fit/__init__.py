"""How a chunk is fitted: free to change, since no reader depends on it."""

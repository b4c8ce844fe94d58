"""What decoding evaluates: the network, the transform, and their sum. Pure functions of arrays."""

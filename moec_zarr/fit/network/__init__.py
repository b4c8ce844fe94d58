"""The fit of networks: where they begin, training, quantisation, and groups that are trained as one."""

"""Measurements of the codec and of what it is compared with; ``docs/benchmarks.md`` says how to run them."""

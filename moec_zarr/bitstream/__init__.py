"""Bytes to integers and back: the container, its sections, the range coder. Twin of ``docs/format.md``."""

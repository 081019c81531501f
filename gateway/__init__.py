"""Voxgate: one small gateway in front of swappable speech engines."""

__version__ = "0.1.0"

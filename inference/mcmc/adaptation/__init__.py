"""Adaptation: how kernels learn their settings in warm-up."""

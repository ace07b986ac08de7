"""Sequential Monte Carlo: steps on populations, paths of targets, and the methods made of them. See `step.py`."""

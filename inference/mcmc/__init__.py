"""Markov chain Monte Carlo: kernels, their adaptation, and the front door `mcmc`."""

"""Thin adapters: they translate to the core and delegate, nothing else."""

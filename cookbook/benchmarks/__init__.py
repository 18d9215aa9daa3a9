"""Benchmarks: each is a script that measures on real collections, ``python -m rarebit.cookbook.benchmarks.NAME --data DIR``.

Every benchmark takes ``--data`` (a folder of collections in BEIR layout), ``--collections``, ``--quick`` and ``--json``, prints
plain tables, and writes rows of the one type in :mod:`.figures`. Baselines and controls are methods like any other.
"""

"""Recipes that run: each is a script, ``python -m rarebit.cookbook.NAME``, and each is executed by the tests."""

"""Finds things: the embedded collection (``collection``), and texts that are nearly the same (``near_duplicates``)."""

"""Finds things: the embedded collection (``collection``)."""

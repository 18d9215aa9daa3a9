"""Finds things: the embedded collection, texts that are nearly the same, and the way in from other stores."""

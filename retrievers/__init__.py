"""Finds things: the embedded collection, situated chunks, texts that are nearly the same, and the way in from other stores."""

"""Finds things: the embedded collection (``collection``), and the way in from other stores (``importing``)."""

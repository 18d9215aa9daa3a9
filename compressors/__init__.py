"""Makes things smaller: embeddings to codes (``vectors``)."""

"""Milvus: a file (Milvus Lite), one server, or a cluster."""

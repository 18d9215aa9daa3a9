"""Rarebit under LlamaIndex's own import path; the packages above this one are namespaces, without ``__init__.py``."""

from rarebit.integrations.llama_index import OneTokenLLM

__all__ = ["OneTokenLLM"]

"""Rarebit under LlamaIndex's own import path; the packages above this one are namespaces, without ``__init__.py``."""

from rarebit.integrations.llama_index import CosineAdapterPostprocessor, NearDuplicatePostprocessor, OneTokenPostprocessor

__all__ = ["CosineAdapterPostprocessor", "NearDuplicatePostprocessor", "OneTokenPostprocessor"]

"""Near-duplicates: texts that are the same but for small edits, found by MinHash and confirmed exactly.

``shingles`` says what alike means, ``minhash`` finds candidates without comparing all with all, ``finding`` works on texts in
memory, ``stored`` on the rows of a collection's file.
"""

from rarebit.retrievers.near_duplicates.finding import near_duplicate_of, unique
from rarebit.retrievers.near_duplicates.minhash import MinHasher, as_threshold
from rarebit.retrievers.near_duplicates.shingles import jaccard, normalized, shingles
from rarebit.retrievers.near_duplicates.stored import Intake, NearDuplicateIndex

__all__ = [
    "Intake",
    "MinHasher",
    "NearDuplicateIndex",
    "as_threshold",
    "jaccard",
    "near_duplicate_of",
    "normalized",
    "shingles",
    "unique",
]

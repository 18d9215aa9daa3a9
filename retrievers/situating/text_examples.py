"""What an encoder is fine-tuned on: the texts of documents' chunks, and questions whose answers stand in one of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property

from rarebit.errors import InputError
from rarebit.retrievers.situating.context_blocks import checked_texts
from rarebit.retrievers.situating.examples import removed_sentences


class TextExamples:
    """Documents and questions, as texts.

    Args:
        documents: for each document the texts of its chunks, in their order.
        questions: m texts; one that several chunks answer comes once with each.
        places: for each question the number of its document, and that of the chunk that answers it.
        taken_out: the questions are sentences of their chunks, which lose them while they are asked (:meth:`unlabelled`).

    Raises:
        InputError: what should be texts is none; places that are not there; sentences that their chunks do not have.
    """

    def __init__(
        self,
        documents: Sequence[Sequence[str]],
        questions: Sequence[str],
        places: Sequence[tuple[int, int]],
        *,
        taken_out: bool = False,
    ) -> None:
        """Check everything against everything."""
        self.documents = [checked_texts(chunks, "chunk") for chunks in documents]
        self.questions = checked_texts(questions, "question")
        self.places = [(int(document), int(chunk)) for document, chunk in places]
        self.taken_out = taken_out
        if len(self.questions) != len(self.places):
            raise InputError(f"got {len(self.questions)} questions and {len(self.places)} places, wanted one of each")
        for question, (document, chunk) in zip(self.questions, self.places, strict=True):
            if not (0 <= document < len(self.documents) and 0 <= chunk < len(self.documents[document])):
                raise InputError(
                    f"got a question about chunk {chunk} of document {document}, which is not there: count both from 0"
                )
            if taken_out and question not in self.documents[document][chunk]:
                raise InputError(
                    f"got the sentence {question[:60]!r}, which chunk {chunk} of document {document} does not have, wanted "
                    "sentences as they stand there: leave taken_out out if these are questions"
                )

    @classmethod
    def unlabelled(cls, documents: Sequence[Sequence[str]], *, per_chunk: int = 2, seed: int = 0) -> TextExamples:
        """Make examples of nothing but documents: a sentence that is taken out of its chunk asks for it.

        Args:
            documents: for each document the texts of its chunks, in their order.
            per_chunk: sentences of a chunk at most; chunks of fewer than three sentences lose none.
            seed: of the draw.
        """
        sentences = removed_sentences(documents, per_chunk=per_chunk, seed=seed)
        places = [(sentence.document, sentence.chunk) for sentence in sentences]
        return cls(documents, [sentence.text for sentence in sentences], places, taken_out=True)

    def chunks(self, document: int, asked: Collection[int] = ()) -> list[str]:
        """Give the chunks of a document while some questions are asked: without them, where they are sentences of it."""
        chunks = list(self.documents[document])
        for which in asked if self.taken_out else ():
            owner, chunk = self.places[which]
            if owner == document:
                chunks[chunk] = chunks[chunk].replace(self.questions[which], " ").strip()
        return chunks

    @cached_property
    def answers(self) -> dict[str, set[tuple[int, int]]]:
        """For each question the places of all chunks that answer it."""
        found: dict[str, set[tuple[int, int]]] = {}
        for question, place in zip(self.questions, self.places, strict=True):
            found.setdefault(question, set()).add(place)
        return found

    def __len__(self) -> int:
        """Count the questions."""
        return len(self.questions)

"""How many tokens MiniLM really reads, as it is and with a longer window: the passkey test of LongEmbed (2404.12096).

``python -m rarebit.cookbook.benchmarks.passkey [--model FOLDER] [--lengths 256,512,1024,2048] [--trials 50]``

One sentence of each document, amid filler, tells a person's passkey; a question for it has to find that document among those of
its length. By chance one question in ``--trials`` is right. Each method extends the model to each length that it does not read
as it is; ``usable`` is the greatest length up to which the accuracy is at least .8.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rarebit.cookbook.benchmarks.figures import Figure, Subject, table, write_json
from rarebit.retrievers.situating import extend_context, passkey_report

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

METHODS = ("interpolation", "grouped", "recurrent")
"""Those of a table of positions, as MiniLM has one; a model with rotary ones has others."""


def measure(encoder: SentenceTransformer, lengths: Sequence[int], methods: Sequence[str], trials: int) -> list[Figure]:
    """Test an encoder as it is, and extended by each method to each length that is beyond its window."""
    plain = Subject("passkey", "filler", "as it is", f"reads {encoder.max_seq_length}")
    report = passkey_report(encoder, lengths, trials=trials)
    figures = [plain.counted(f"{length}", accuracy, trials) for length, accuracy in report.accuracies.items()]
    figures.append(plain.counted("usable", report.usable_length, trials))
    for method in methods:
        for length in lengths:
            if encoder.max_seq_length is None or length <= encoder.max_seq_length:
                continue
            extended = extend_context(encoder, length, method=method)
            report = passkey_report(extended, [tested for tested in lengths if tested <= length], trials=trials)
            subject = Subject("passkey", "filler", method, f"reads {length}")
            figures += [subject.counted(f"{tested}", accuracy, trials) for tested, accuracy in report.accuracies.items()]
            figures.append(subject.counted("usable", report.usable_length, trials))
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of another encoder of sentence-transformers")
    parser.add_argument("--lengths", default="256,512,1024,2048", help="tokens, with commas between")
    parser.add_argument("--methods", default=",".join(METHODS), help="of extend_context, with commas between")
    parser.add_argument("--trials", type=int, default=50, help="questions at each length")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    given = parser.parse_args(arguments)
    from rarebit.cookbook.models import load_minilm
    from rarebit.encoders import load_encoder

    encoder = load_minilm() if given.model is None else load_encoder(given.model)
    lengths = sorted(int(length) for length in given.lengths.split(","))
    figures = measure(encoder, lengths, given.methods.split(","), given.trials)
    print(table(figures, ()))
    if given.json is not None:
        write_json(figures, given.json)


if __name__ == "__main__":
    main()

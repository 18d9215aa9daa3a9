"""Moving a collection between a file and an engine, with its codes as they are: nothing is embedded or encoded again.

Rows are copied tenant by tenant, in the order of insertion; what is in the target already is left as it is, so a move that was
killed goes on behind it. Both sides may be in use: what was written to the source meanwhile is copied in another round. In the
end both are read once and compared, by counts and by checksums over ids, texts, metadata and codes, in their order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from tqdm.auto import tqdm

from rarebit.errors import CollectionError, SettingsError
from rarebit.retrievers.engines.engine import OWN, NewRow
from rarebit.retrievers.engines.move_ends import End, Movable, MoveSource, end_of, same

ROUNDS: Final = 5
"""In which the target catches up with a source that is written to."""


@dataclass(frozen=True)
class MoveReport:
    """What a move did.

    Args:
        rows: how many rows both sides have now, of everybody.
        copied: how many rows were written by this call.
        deleted: how many rows the target had that the source has not.
        tenants: how many tenants have rows.
        checksum: of all rows, the same on both sides.
    """

    rows: int
    copied: int
    deleted: int
    tenants: int
    checksum: str


def move(source: Movable, target: Movable, *, overwrite: bool = False, progress: bool = False) -> MoveReport:
    """Make a target what a source is: its rows with their ids, texts, metadata and codes, in their order, tenant by tenant.

    Args:
        source: is read, and stays as it is.
        target: is empty, or what an earlier move from the same source has left.
        overwrite: replace and delete rows of the target that are not the source's, or not any more.
        progress: show a progress bar.

    Raises:
        SettingsError: the target has other settings or codes than the source; or, without ``overwrite``, other rows.
        EngineLimitError: the source shares rows with tenants, or looks for near-duplicates, and the target cannot.
        CollectionError: the source was trained, or changed faster than it could be copied, meanwhile.
    """
    return move_between(end_of(source), end_of(target), overwrite=overwrite, progress=progress)


def move_between(
    here: MoveSource, there: End, *, overwrite: bool = False, progress: bool = False, doing: str = "moving"
) -> MoveReport:
    """Make one side what the other is; as :func:`move`, of which ``doing`` is what the progress bar says."""
    kept = here.kept()
    there.take(kept, here)
    copied = deleted = 0
    for _ in range(ROUNDS):
        names = list(dict.fromkeys([*here.tenants(), *there.tenants()]))
        for tenant in names:
            deleted += _clear(here, there, tenant, overwrite=overwrite)
        for tenant in names:
            copied += _copy(here, there, tenant, doing if progress else None)
        sums = [_summed(end, names) for end in (here, there)]
        if not same(here.kept(), kept):
            raise CollectionError(f"{here.where} was trained meanwhile: move again, into an empty collection")
        if sums[0] == sums[1]:
            there.finish()
            count, checksum = sums[0]
            return MoveReport(count, copied, deleted, sum(name != OWN for name in there.tenants()), checksum)
        overwrite = True  # what differs from here on was written to the source meanwhile
    raise CollectionError(f"{here.where} is written to faster than it can be copied: move again when less is written")


def _clear(source: MoveSource, target: End, tenant: str, *, overwrite: bool) -> int:
    """Delete rows of the target that the source has not, or has otherwise; returns how many it has not."""
    deleted = 0
    for part in target.every(tenant):
        wanted = {row.id: _digest(row) for row in source.named(tenant, [row.id for row in part])}
        other = [row.id for row in part if wanted.get(row.id) != _digest(row)]
        if other and not overwrite:
            raise SettingsError(
                f"{target.where} has rows that {source.where} has not, or has otherwise (such as {other[0]!r}), wanted an "
                "empty collection, or what an earlier move from there has left; nothing was changed: overwrite=True replaces "
                "them"
            )
        if other:
            target.delete(tenant, other)
        deleted += sum(key not in wanted for key in other)
    return deleted


def _copy(source: MoveSource, target: End, tenant: str, doing: str | None) -> int:
    """Write the source's rows from the first one on that is not in its place; returns how many."""
    there = (row.id for part in target.every(tenant) for row in part)
    copied, new = 0, False
    with tqdm(desc=f"{doing} {tenant or 'own rows'}", unit="row", disable=doing is None) as bar:
        for part in source.every(tenant):
            first = 0 if new else next((place for place, row in enumerate(part) if next(there, None) != row.id), len(part))
            if first < len(part):
                new = True
                target.put(tenant, part[first:])
                copied += len(part) - first
            bar.update(len(part))
    return copied


def _summed(end: MoveSource, tenants: list[str]) -> tuple[int, str]:
    """Count all rows, and chain their checksums in their order."""
    count, chain = 0, blake2b(digest_size=8)
    for tenant in tenants:
        chain.update(tenant.encode() + b"\0")
        for part in end.every(tenant):
            count += len(part)
            for row in part:
                chain.update(_digest(row))
    return count, chain.hexdigest()


def _digest(row: NewRow) -> bytes:
    metadata = json.dumps(json.loads(row.metadata), sort_keys=True)
    told = blake2b(digest_size=16)
    for part in (row.id.encode(), row.text.encode(), metadata.encode(), row.code, row.fine or b""):
        told.update(len(part).to_bytes(8, "little") + part)
    return told.digest()

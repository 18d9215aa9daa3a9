"""Which rows a search is among, in the form in which the codes in memory are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rarebit.arrays import RowIds


@dataclass(frozen=True)
class Selection:
    """Rows to search among.

    Args:
        row_ids: the rows, ascending; None for all rows, or all of one owner.
        owners: tenants to whom they all belong; None for any. Without row ids, one tenant.
    """

    row_ids: RowIds | None = None
    owners: tuple[int, ...] | None = None


EVERY_ROW: Final = Selection()

"""What a store of either framework works on: a collection, or one of its tenants."""

from __future__ import annotations

from typing import TypeAlias

from rarebit.errors import InputError
from rarebit.retrievers.collection import Collection, Tenant

Rows: TypeAlias = Collection | Tenant
"""Whose rows are read and written: those of the collection itself, or those of a tenant."""


def bound(given: Rows, tenant: str | None) -> tuple[Collection, Rows]:
    """Give the collection, and the handle through which a store reads and writes.

    Args:
        given: a collection, or the handle of a tenant.
        tenant: the tenant's name; None for the collection itself, or the tenant that is given.

    Raises:
        InputError: a handle of another tenant is given, or the name is none.
    """
    if not isinstance(given, Tenant):
        return given, given if tenant is None else given.tenant(tenant)
    if tenant is not None and tenant != given.name:
        raise InputError(
            f"got the handle of tenant {given.name!r} as collection= together with tenant={tenant!r}, wanted one tenant: "
            "leave tenant= out, or pass the collection"
        )
    return Collection(given._engine), given

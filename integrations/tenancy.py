"""What a store of either framework works on: a collection, or one of its tenants."""

from __future__ import annotations

from rarebit.errors import InputError
from rarebit.retrievers.collection import Collection, Tenant
from rarebit.retrievers.engines import AnyCollection, AnyRows, RemoteTenant


def bound(given: AnyRows, tenant: str | None) -> tuple[AnyCollection, AnyRows]:
    """Give the collection, and the handle through which a store reads and writes.

    Args:
        given: a collection, or the handle of a tenant.
        tenant: the tenant's name; None for the collection itself, or the tenant that is given.

    Raises:
        InputError: a handle of another tenant is given, or the name is none.
    """
    if not isinstance(given, Tenant | RemoteTenant):
        return given, given if tenant is None else given.tenant(tenant)
    if tenant is not None and tenant != given.name:
        raise InputError(
            f"got the handle of tenant {given.name!r} as collection= together with tenant={tenant!r}, wanted one tenant: "
            "leave tenant= out, or pass the collection"
        )
    return given.collection if isinstance(given, RemoteTenant) else Collection(given._engine), given


def tenant_of(rows: AnyRows) -> str | None:
    """Name the tenant to whom rows are bound; None for a collection's own."""
    return rows.name if isinstance(rows, Tenant | RemoteTenant) else None

"""Keys as an operator makes them beside a running gateway."""

from datetime import datetime

from gateway.caller import EVERYTHING, Right
from gateway.database import open_database
from gateway.keys import Key, Keys, Limits, Wanted, pepper
from tests.conftest import Gateway


async def issue(
    gateway: Gateway,
    *rights: Right,
    tenant: str = "",
    token: str = "",
    appkey: str = "",
    limits: Limits = Limits(),
    expires_at: datetime | None = None,
    taken_up: bool = True,
) -> tuple[Key, str]:
    """A new key, by default for everything, and what its bearer sends. taken_up: whether the gateway has it already."""
    scopes = frozenset(rights) or EVERYTHING
    wanted = Wanted(scopes, tenant=tenant, limits=limits, appkey=appkey, token=token, expires_at=expires_at)
    async with open_database(gateway.settings) as database:
        found = await Keys(database, pepper(gateway.settings.data_dir)).create(wanted)
    if taken_up:
        await gateway.state["access"].refresh()
    return found


async def revoke(gateway: Gateway, key: Key) -> None:
    """As `voxgate keys revoke` does; the gateway has yet to notice."""
    async with open_database(gateway.settings) as database:
        assert await Keys(database, pepper(gateway.settings.data_dir)).revoke(key.id)


def bearer(sent: str) -> dict[str, str]:
    return {"authorization": f"Bearer {sent}"}

"""`voxgate keys create | list | revoke`: for whoever may read and write the data folder, while the gateway runs too."""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.caller import Right
from gateway.database import open_database
from gateway.errors import BadRequest
from gateway.keys import Key, Keys, Limits, Wanted, pepper
from gateway.settings import Settings, SettingsError, load

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def run(asked: argparse.Namespace) -> int:
    """Exit status. Raises SettingsError."""
    given = {name: value for name, value in vars(asked).items() if name in ("data_dir", "config")}
    works = {"create": _create, "list": _list, "revoke": _revoke}
    try:
        return asyncio.run(_opened(works[asked.work], asked, load(given)))
    except BadRequest as exc:
        raise SettingsError(str(exc)) from None


# Private


async def _opened(work: Any, asked: argparse.Namespace, settings: Settings) -> int:
    async with open_database(settings) as database:
        found: int = await work(asked, Keys(database, await asyncio.to_thread(pepper, settings.data_dir)))
    return found


async def _create(asked: argparse.Namespace, keys: Keys) -> int:
    """The key alone is on standard output, so that it can be piped on."""
    token = sys.stdin.readline().strip() if asked.token == "-" else asked.token
    limits = Limits(asked.rate, asked.sessions, asked.day, asked.month)
    expires = _moment(asked.expires) if asked.expires else None
    rights = _rights(asked.scopes)
    key, sent = await keys.create(Wanted(rights, asked.tenant, asked.name, limits, asked.appkey, expires, token))
    if asked.json:
        print(json.dumps(_shown(key, (0.0, 0.0)) | {"key": sent}, ensure_ascii=False))
    else:
        print(f"key {key.id}, shown this once:", file=sys.stderr, flush=True)
        print(sent)
    return 0


async def _list(asked: argparse.Namespace, keys: Keys) -> int:
    used = await keys.used(datetime.now(UTC).date())
    found = [_shown(key, used.get(key.id, (0.0, 0.0))) for key in await keys.list()]
    if asked.json:
        print(json.dumps(found, ensure_ascii=False))
    elif found:
        _print_table(found)
    else:
        print("there are no keys: the gateway is open", file=sys.stderr)
    return 0


async def _revoke(asked: argparse.Namespace, keys: Keys) -> int:
    known = [key_id for key_id in asked.ids if await keys.revoke(key_id)]
    if asked.json:
        print(json.dumps({"revoked": known}))
    for key_id in asked.ids:
        if key_id not in known:
            print(f"voxgate: there is no key {key_id}", file=sys.stderr)
    return 0 if len(known) == len(asked.ids) else 1


def _rights(scopes: str) -> frozenset[Right]:
    try:
        return frozenset(Right(one.strip()) for one in scopes.split(",") if one.strip())
    except ValueError:
        raise BadRequest(f"scopes are {', '.join(Right)}") from None


def _moment(text: str) -> datetime:
    """Of an age from now, or of a date. Raises BadRequest."""
    now = datetime.now(UTC)
    try:
        if text[-1:] in _UNITS:
            found = now + int(text[:-1]) * _UNITS[text[-1]]
        else:
            found = datetime.fromisoformat(text)
            found = found if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadRequest("expires: such as 90d, 12h or 2030-01-31") from None
    if found <= now:
        raise BadRequest("expires: that has passed")
    return found


def _shown(key: Key, used: tuple[float, float]) -> dict[str, Any]:
    limits = key.limits
    state = "good" if key.good else "expired" if key.revoked_at is None else "revoked"
    moments = {
        "created": key.created_at,
        "expires": key.expires_at,
        "revoked": key.revoked_at,
        "seen": key.last_used_at,
    }
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "state": state,
        "scopes": sorted(key.rights),
        "rate": limits.rate,
        "sessions": limits.sessions,
        "day": limits.day_seconds,
        "used_today": round(used[0], 2),
        "month": limits.month_seconds,
        "used_this_month": round(used[1], 2),
        "appkey": bool(key.appkey),
        **{name: at and at.isoformat(timespec="seconds") for name, at in moments.items()},
    }


def _print_table(found: Sequence[dict[str, Any]]) -> None:
    lines = [tuple(name.replace("_", " ") for name in found[0]), *(tuple(map(_cell, one.values())) for one in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    if isinstance(value, bool):
        return "yes" if value else "-"
    return "-" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)

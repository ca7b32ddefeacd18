"""Where a ledger and its files are when nobody says: in the user's folders. It makes none of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from polyvox.database import Address


def default_place(env: Mapping[str, str] | None = None) -> Path:
    """The file of the ledger: in $POLYVOX_HOME, else in the platform's folder for data."""
    return _folder(env, "XDG_DATA_HOME", ".local/share") / "ledger.db"


def spool_folder(address: Address, given: Path | None, env: Mapping[str, str] | None = None) -> Path:
    """Where the files of a ledger's processes are: beside a file of SQLite; for a server, in the user's folder for
    state, by a digest of the address."""
    if given is not None:
        return given
    if address.path is not None:
        return Path(f"{address.path}.spool")
    return _folder(env, "XDG_STATE_HOME", ".local/state") / "spool" / address.digest


def _folder(env: Mapping[str, str] | None, variable: str, usual: str) -> Path:
    env = os.environ if env is None else env
    if env.get("POLYVOX_HOME"):
        return Path(env["POLYVOX_HOME"]).expanduser()
    if sys.platform == "win32" and env.get("LOCALAPPDATA"):
        return Path(env["LOCALAPPDATA"]) / "polyvox"
    base = Path(env.get(variable, ""))
    # The XDG specification has relative paths ignored.
    return (base if base.is_absolute() else Path.home() / usual) / "polyvox"

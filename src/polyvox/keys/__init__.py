"""Where keys come from and how they stay secret: the `Secret` value and redaction (`secret`, `logs`), where a key is
found and which host it may go to (`finding`), and where keys are kept (`store`, `files`)."""

from __future__ import annotations

from polyvox.keys.files import config_dir, locked, write_atomically
from polyvox.keys.finding import FoundKey, allowed_host, find_key, key_of_parts, missing_key_error
from polyvox.keys.logs import RedactingFilter, install_redaction
from polyvox.keys.secret import MASK, Secret, is_secret_name, redact, remember, secret_of
from polyvox.keys.store import KeyStore, StoredKey

__all__ = [
    "MASK", "FoundKey", "KeyStore", "RedactingFilter", "Secret", "StoredKey", "allowed_host", "config_dir", "find_key",
    "install_redaction", "is_secret_name", "key_of_parts", "locked", "missing_key_error", "redact", "remember",
    "secret_of", "write_atomically",
]  # fmt: skip

"""The command line of AI Utilities by the second of the two paths that its document gives: the same program."""

from __future__ import annotations

from polyvox.compat.ai_utilities.cli import cli, main, setup_command

__all__ = ["cli", "main", "setup_command"]

if __name__ == "__main__":
    main()

"""What a call costs, measured against raw aiohttp and the official SDK in one run: `python -m benchmarks`."""

"""`python -m polyvox` is the `polyvox` command."""

from polyvox.cli import main

if __name__ == "__main__":
    main()

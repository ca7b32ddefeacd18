"""`python -m tests.simulation SEED`: one world again, and all that happens in it; what is broken is told at the end."""

import argparse
import sys

from polyvox.testing.virtual import HangError
from tests.simulation.invariants import broken
from tests.simulation.pooled import PooledWorld, TornWorld
from tests.simulation.world import World


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seed", type=int, nargs="+")
    parser.add_argument("--digest", action="store_true", help="print the digest of the trace alone")
    parser.add_argument("--pooled", action="store_true", help="with a pool before the deployments")
    parser.add_argument("--torn", action="store_true", help="the same, and nearly every stream breaks off")
    options = parser.parse_args()
    kind = TornWorld if options.torn else PooledWorld if options.pooled else World
    failed = False
    for seed in options.seed:
        world, found = kind(seed, keep=not options.digest), []
        try:
            found = broken(world.run())
        except HangError as error:
            found = [str(error)]
        for line in world.virtual.trace.lines or ():
            print(line)
        print(world.virtual.trace.digest)
        for line in found:
            failed = True
            print(f"BROKEN {line}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

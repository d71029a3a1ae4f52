"""Run seeds: `python -m tests.simulator.run --seeds 200 [--from N]`. Exits 1 at the first failing seed and names it."""

import argparse
import sys
import time

import kfm_server

from tests.simulator.simulation import simulate


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first one")
    parser.add_argument("--all", action="store_true", help="go on after a failing seed")
    parser.add_argument("--verbose", action="store_true", help="print the faults of failing seeds")
    asked = parser.parse_args()
    print(f"engine {kfm_server.__path__[0]}")
    began = time.monotonic()
    turns = events = failed = 0
    for seed in range(asked.first, asked.first + asked.seeds):
        outcome = simulate(seed)
        turns += outcome.turns
        events += outcome.events
        if not outcome.violations:
            continue
        failed += 1
        print(f"seed {seed} FAILED: {len(outcome.violations)} violations, journal {outcome.digest}")
        for line in outcome.violations[:12]:
            print(f"  {line}")
        if asked.verbose:
            for line in outcome.faults:
                print(f"    fault {line}")
        print(f"  replay: python -m tests.simulator.run --from {seed} --seeds 1 --verbose")
        if not asked.all:
            return 1
    took = time.monotonic() - began
    print(f"{asked.seeds} seeds, {turns} turns, {events} events, {failed} failed, {took:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

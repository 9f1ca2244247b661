"""Runs rounds of a part of the stress test, and says what was broken.

Run by test/stress/run, against a server that it has started.
"""
import argparse
import collections
import os
import shutil
import sys

from policies import PolicyRound
from queues import QueueRound
from rounds import say
from streams import StreamRound

# A round ends with everything drained and checked; a long run has many.
ROUND = 180
# On a machine that is busy with something else it goes on, up to so many rounds more, until it has seen enough
MORE_ROUNDS = 12
PARTS = {"queues": QueueRound, "policies": PolicyRound, "streams": StreamRound}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", required=True, choices=PARTS)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--workers", type=int, default=9)
    parser.add_argument("--no-server-restarts", dest="restarts", action="store_false")
    parser.add_argument("--go-on", action="store_true", help="do not stop at the first missed message")
    parser.add_argument("--data", required=True)
    parser.add_argument("--other", required=True, help="an empty directory, for another server")
    parser.add_argument("--logs", required=True)
    options = parser.parse_args()
    part = PARTS[options.part]

    broken, little, seen = set(), [], collections.Counter()
    number, left, more = 0, options.seconds, MORE_ROUNDS
    while (left > 0 or (little and more)) and not broken:
        seconds = min(left or options.seconds, ROUND)
        left, more = max(left - seconds, 0), more if left else more - 1
        # The first round has the seed as it was given, so that it can be given again
        seed = options.seed if number == 0 else "%s.%d" % (options.seed, number)
        round_ = part(options, seed, seconds, os.path.join(options.logs, "%s%d" % (options.part, number)))
        try:
            round_.prepare()
            round_.run()
        finally:
            round_.stop()
        round_.drain()
        broken = round_.check(seen)
        little = part.too_little(seen, options.seconds)
        round_.session.conn.close()
        if not broken and not os.environ.get("KEEP_WORK"):
            shutil.rmtree(round_.log_dir)
        number += 1
    # A run that ended early for a violation may have seen little else
    if little and not broken:
        broken.add(part.enough[0])
        for what in little:
            say("too little to check: " + what)
    for name, promise in part.invariants + (part.enough,):
        say("%s - stress, %s: %s" % ("not ok" if name in broken else "ok", options.part, promise))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()

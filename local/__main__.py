"""`python -m local start` and `python -m local demo`: the commands behind make."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    # Ctrl-C during the imports: no child exists yet, so end at once, without a traceback. With exit code 0, make prints
    # no error. The command installs its own handler later.
    signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(0))
    # The imports take a third of a second, so they come after the line above.
    from local.signals import end_with_make

    end_with_make()
    match sys.argv[1:]:
        case ["start"]:
            from local.start import main as command
        case ["demo", *_]:
            from local.demo import main as command
        case _:
            print("usage: python -m local start | demo", file=sys.stderr)
            return 2
    return command(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())

"""`python -m local start` and `python -m local demo`: what make runs."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    # Ctrl-C while modules are imported: there is no child to end yet, so the kernel may end this process, without
    # the traceback of an import. The command's own handler replaces this one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Imported only here: it all takes a third of a second, in which Python's own handler would print that traceback.
    from local.ending import end_with_make

    end_with_make()
    match sys.argv[1:]:
        case ["start"]:
            from local.stack import main as command
        case ["demo", *_]:
            from local.demo import main as command
        case _:
            print("usage: python -m local start | demo", file=sys.stderr)
            return 2
    return command(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())

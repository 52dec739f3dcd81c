"""``python -m tests.chaos`` (``make chaos``): kill hosts under load, and check that nothing is lost or paid twice.

Exit code 1: something was lost or doubled.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace

from local.signals import end_with_make, stop_on_sigterm
from tests.chaos.run import LOGS, run
from tests.chaos.scenario import Mode, Options


def main(argv: Sequence[str] | None = None) -> int:
    end_with_make()
    stop_on_sigterm()
    arguments = _parser().parse_args(argv)
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    repeats = {"true": [True], "false": [False], "both": [False, True]}[arguments.repeat_lost_calls]
    options = Options(
        seed=seed,
        generations=arguments.generations,
        kills=arguments.kills,
        crashes=arguments.crashes,
        hosts=arguments.hosts,
        seconds=arguments.seconds,
        mode=arguments.mode,
        patience=arguments.patience,
        real_time=arguments.real_time,
    )
    try:
        passed = [_run(replace(options, repeat_lost_calls=repeat)) for repeat in repeats]
    except KeyboardInterrupt:
        return 130
    _say(f"The output of the hosts is in {LOGS}. To repeat the choices: --seed {seed}")
    return 0 if all(passed) else 1


def _run(options: Options) -> bool:
    """Return whether nothing was lost or doubled."""
    _say(f"seed {options.seed}, mode {options.mode}, REPEAT_LOST_CALLS={str(options.repeat_lost_calls).lower()}")
    report = run(options, say=_say, logs=LOGS / f"repeat-{str(options.repeat_lost_calls).lower()}")
    for line in report.figures:
        _say(f"  {line}")
    for line in report.problems:
        _say(f"  PROBLEM {line}")
    _say(f"{'FAILED' if report.problems else 'PASSED'}: {len(report.problems)} problems")
    return not report.problems


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    defaults = Options(seed=0)
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeats the choices of a run (default: a random one)")
    parser.add_argument("--generations", type=int, default=defaults.generations, help="in each run")
    parser.add_argument("--kills", type=int, default=defaults.kills, help="SIGKILLs at random moments, in mode kill")
    parser.add_argument("--crashes", type=int, default=defaults.crashes, help="host lives with a crash point")
    parser.add_argument("--hosts", type=int, default=defaults.hosts, choices=range(2, 5))
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="duration of the faults")
    parser.add_argument("--mode", type=Mode, default=defaults.mode, choices=tuple(Mode))
    parser.add_argument("--repeat-lost-calls", choices=("true", "false", "both"), default="both")
    parser.add_argument(
        "--patience", type=float, default=defaults.patience, help="seconds to wait for the last outcome"
    )
    parser.add_argument("--real-time", action="store_true", help="wait for the claims of killed hosts to expire")
    return parser


if __name__ == "__main__":
    sys.exit(main())

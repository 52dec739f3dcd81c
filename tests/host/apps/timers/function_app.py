"""A timer, for the tests of local.host."""

from __future__ import annotations

import logging
import os
import time

import azure.functions as func

app = func.FunctionApp()
log = logging.getLogger("timers")


@app.timer_trigger(arg_name="timer", schedule="%SCHEDULE%")
def tick(timer: func.TimerRequest) -> None:
    log.info("tick begins, past due: %s", timer.past_due)
    time.sleep(float(os.environ.get("TICK_TAKES", "0")))
    log.info("tick ends")

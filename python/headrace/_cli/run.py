"""`headrace run`: run a Python program unchanged, with accelerated flows of other libraries."""

from __future__ import annotations

import logging
import runpy
import sys
import traceback
from argparse import Namespace
from pathlib import Path

from headrace._cli.screen import FAILED, OK
from headrace.integrations._libraries import LOG, accelerate_libraries


def run(arguments: Namespace) -> int:
    """Run a script as Python does, and report on the standard error which models are accelerated."""
    with open(arguments.script, "rb"):  # so that an error about a missing script names the file
        pass
    if not arguments.quiet:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("headrace: %(message)s"))
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)
        LOG.propagate = False
    sys.argv = [arguments.script, *arguments.arguments]
    sys.path.insert(0, str(Path(arguments.script).resolve().parent))
    accelerate_libraries()
    try:
        runpy.run_path(arguments.script, run_name="__main__")
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else OK if stop.code is None else FAILED
    except Exception as error:
        inside = error.__traceback__
        while inside is not None and inside.tb_frame.f_code.co_filename != arguments.script:
            inside = inside.tb_next
        traceback.print_exception(type(error), error, inside or error.__traceback__)
        return FAILED
    return OK

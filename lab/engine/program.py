"""Runs a Pulumi program: what the language host starts with the Python of the project's virtual environment.

It reads from standard input, as JSON, what the engine said about the run. Secrets among the configuration so stay out
of arguments and environment. It imports nothing of this kit, because that environment need not hold it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import runpy
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pulumi
import pulumi.runtime

# The engine is not to add an error of its own: the person has seen one already.
TOLD = 32


def main() -> int:
    """Run the program to its end and return the exit status: 0, or `TOLD` after an error."""
    run: dict[str, Any] = json.load(sys.stdin)
    os.chdir(run["pwd"])
    sys.argv = [run["program"], *run["args"]]
    pulumi.runtime.set_all_config(run["config"], run["secret_keys"])
    pulumi.runtime.configure(pulumi.runtime.Settings(**run["settings"]))
    # A program that fails leaves tasks unfinished, and asyncio would report each of them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_default_executor(ThreadPoolExecutor(max(run["settings"]["parallel"], 1) * 4))
    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(lambda: _execute(run["program"])))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return TOLD
    except Exception:  # whatever the program raised is the person's to read
        pulumi.log.error(f"Program failed with an unhandled exception:\n{traceback.format_exc()}")
        return TOLD
    return 0


def _execute(program: str) -> None:
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    sys.exit(main())

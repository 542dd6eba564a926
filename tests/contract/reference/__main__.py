"""A second broker, as simple as can be, which shows that the contract suite is about the contract.

    python -m tests.contract.reference [--without RULE] serve

It speaks the jobs dialect and imports nothing of the broker. Without a rule of faults.py it breaks just that one:
a piece of its source is replaced as it is loaded.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from tests.contract.reference.faults import FAULTS, Fault


def break_rule(fault: Fault) -> None:
    """Load the fault's module, broken."""
    path = Path(__file__).with_name(f"{fault.module}.py")
    module = ModuleType(f"{__package__}.{fault.module}")
    sys.modules[module.__name__] = module
    exec(compile(fault.applied(path.read_text(encoding="utf-8")), path, "exec"), module.__dict__)  # noqa: S102


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--without"]:
        break_rule(FAULTS[arguments[1]])
        arguments = arguments[2:]
    from tests.contract.reference.serve import run

    run(arguments)

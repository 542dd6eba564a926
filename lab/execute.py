"""A program of another maker as one of the lab's own services: `Lab.service("headscale", "lab.execute", PROGRAM, …)`.

python -m lab.execute PROGRAM [ARGUMENT…]
"""

import os
import sys

if __name__ == "__main__":
    os.execvp(sys.argv[1], sys.argv[1:])

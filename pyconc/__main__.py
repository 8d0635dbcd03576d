# SPDX-License-Identifier: MIT
"""python -m pyconc: see pyconc/commands/."""
from pyconc.commands import main

if __name__ == "__main__":
    main()

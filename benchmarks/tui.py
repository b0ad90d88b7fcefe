"""How fast the terminal interface is; tui_speed.py has what is measured, and how.

python benchmarks/tui.py --json FILE [--work DIR] [--tasks 100 1000 5000]
"""

from tui_speed import main

if __name__ == "__main__":
    main()

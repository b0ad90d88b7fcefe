"""Measure the speed of the terminal interface with tui_speed.py, which describes the measurements.

python benchmarks/tui.py --json FILE [--work DIR] [--tasks 100 1700 5000] [--method trajectory]
"""

from tui_speed import main

if __name__ == "__main__":
    main()

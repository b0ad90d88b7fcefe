"""Run the command line by `python -P -m curator` or `PYTHONSAFEPATH=1 accelerate launch -m curator`."""

import os

from curator.core.interpreters import leave_working_folder

if __name__ == "__main__":
    # Before any other import: files of the working folder must not shadow modules.
    leave_working_folder(os.path.dirname(__file__))
    from curator.cli.main import main

    main()

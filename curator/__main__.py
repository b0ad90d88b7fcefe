"""Run the command line by `python -m curator` or `accelerate launch -m curator`."""

from curator.cli.main import main

if __name__ == "__main__":
    main()

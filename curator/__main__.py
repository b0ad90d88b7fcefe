"""`python -m curator`, which is also what `accelerate launch -m curator` runs."""

from curator.cli.main import main

if __name__ == "__main__":
    main()

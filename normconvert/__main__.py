"""`python -m normconvert`: the command line."""

from normconvert.cli import main

if __name__ == "__main__":
    main()

"""`python -m atomr_trio`: the command line, where its script is not in the path."""

from atomr_trio.cli import main

main()

"""`python -m atomr_trio.cli`."""

from . import main

main()

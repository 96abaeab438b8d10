"""`python -m starc.cli`: the command line without its script."""

from starc.cli import main

main()

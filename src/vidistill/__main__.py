"""`python -m vidistill`, the same as `vidistill`."""

from vidistill.cli import main

main()

"""`python -m colibri.curate`."""

import sys

from colibri.curate.cli import main

sys.exit(main())

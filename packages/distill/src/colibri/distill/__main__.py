"""`python -m colibri.distill`."""

import sys

from colibri.distill.cli import main

sys.exit(main())

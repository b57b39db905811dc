"""`python -m colibri.umbrella`."""

import sys

from colibri.umbrella.cli import main

sys.exit(main())

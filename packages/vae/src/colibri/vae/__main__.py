"""`python -m colibri.vae`."""

import sys

from colibri.vae.cli import main

sys.exit(main())

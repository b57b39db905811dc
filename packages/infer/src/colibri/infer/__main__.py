"""`python -m colibri.infer`."""

import sys

from colibri.infer.cli import main

sys.exit(main())

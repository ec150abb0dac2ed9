"""``python -m jaxmas`` is ``jaxmas``."""

import sys

from jaxmas.cli import main

sys.exit(main())

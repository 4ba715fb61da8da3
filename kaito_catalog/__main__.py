"""`python -m kaito_catalog` is the `kaito-catalog` command."""

import sys

from kaito_catalog.cli import main

sys.exit(main())

"""``python -m model_poller``."""

import sys

from model_poller.main import main

sys.exit(main())

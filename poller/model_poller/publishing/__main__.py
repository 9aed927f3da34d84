"""``python -m model_poller.publishing``."""

import sys

from model_poller.publishing.main import main

sys.exit(main())

"""``python -m inferencemodel_operator``."""

import sys

from inferencemodel_operator.main import main

sys.exit(main())

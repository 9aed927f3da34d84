"""``python -m development_model_server`` is ``tensorflow_model_server``."""

import sys

from development_model_server.main import main

sys.exit(main())

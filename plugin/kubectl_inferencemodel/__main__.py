"""``python -m kubectl_inferencemodel``."""

from kubectl_inferencemodel.cli import main

if __name__ == "__main__":
    main()

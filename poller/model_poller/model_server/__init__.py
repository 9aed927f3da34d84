"""The model server next door: its configuration, its answers, its warm-up."""

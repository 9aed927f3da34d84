"""The photo demo: a real ImageNet model served, and its next version rolled out under traffic."""

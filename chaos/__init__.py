"""Random faults for a fleet under traffic, and a judge of what it made of them."""

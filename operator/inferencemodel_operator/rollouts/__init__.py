"""How a version that is wanted reaches the replicas, and what stops a bad one."""

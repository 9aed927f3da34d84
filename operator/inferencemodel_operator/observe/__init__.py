"""What comes in: watches of the cluster, and a long poll to each pod."""

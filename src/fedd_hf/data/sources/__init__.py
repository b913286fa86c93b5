"""Collections of photos as their publishers lay them out -> rows of the one format."""

"""Photos and their segmentation maps from every source, as rows of one format."""

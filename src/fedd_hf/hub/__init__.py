"""Cards and uploads: what the package says about itself on the Hugging Face Hub."""

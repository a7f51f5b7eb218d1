"""Speaker models and the loader of pretrained ones."""

"""Read, write and classify images: everything that differs from audio."""

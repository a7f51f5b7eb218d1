"""Read and write audio, compute spectrograms, and adapt audio to the core."""

"""Audio in and out, spectrogram features, and the audio adapter of the core."""

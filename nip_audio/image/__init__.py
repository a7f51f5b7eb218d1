"""Pictures as a modality of the core: what differs from audio, and nothing else."""

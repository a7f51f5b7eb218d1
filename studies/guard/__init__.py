"""A SpeechBrain training behind a guard that screens its data."""

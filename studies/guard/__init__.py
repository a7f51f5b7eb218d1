"""Study of SpeechBrain trainings whose data a guard screens."""

"""Speaker models, enrolment, PLDA scoring, and loading of pretrained models."""

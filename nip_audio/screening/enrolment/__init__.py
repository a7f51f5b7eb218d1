"""The enrolment gate: what a recording and a speaker must have before they are enrolled."""

"""What the enrolment gate finds of faults that were put in, and what it mistakes."""

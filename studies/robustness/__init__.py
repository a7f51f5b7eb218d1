"""Study of NCCR as a measure of robustness: does its rank agree with accuracy under attack?"""

"""NCCR as a measure of robustness: does the rank agree with accuracy under attack?"""

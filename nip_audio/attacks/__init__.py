"""Attacks on speaker recognition and on image classifiers, behind one protocol.

Some are implemented here, others wrap Foolbox or the Adversarial Robustness Toolbox (ART). Every
result is checked against its ε and the bounds of the input before it is returned.
"""

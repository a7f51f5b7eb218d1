"""Screening: calibrate on clean files, measure the files of a folder and judge each of them."""

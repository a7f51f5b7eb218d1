"""Images in and out, data sets, and classifiers that answer on a URL.

The same detectors, attacks and purifiers run on image models through ``ImageAdapter``.
"""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

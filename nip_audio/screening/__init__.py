"""Screen folders: measure every file, judge it alone and beside its speaker's others.

``Screener.from_pretrained(model).screen(source, out)`` does it all; ``calibrate`` fits the
``Calibration`` that it judges by.
"""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

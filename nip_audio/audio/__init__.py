"""Audio in and out: files, manifests, features, resynthesis and quality.

``read_audio`` reads a file and records every change it made; ``walk_audio`` and ``read_recordings``
list folders and manifests; ``LogMel`` is the differentiable front end of the shipped models.
"""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

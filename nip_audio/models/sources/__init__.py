"""Models of any origin: SpeechBrain, WeSpeaker, pyannote, ONNX, torch's own formats, packages.

``load_source(parse_spec("speechbrain:my-ecapa/"))`` returns a model whose layers can be observed
and whose input lies in [0, 1], whatever features it was trained on. ``nip_audio.load_model`` and
the option ``--model`` call it, and ``nip-audio adopt`` writes down what was measured.
"""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

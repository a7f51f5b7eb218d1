"""Models: architectures, cards, pretrained folders, enrolment, PLDA.

``load_pretrained`` loads a folder with a card, after its hashes were checked. ``enrol`` and
``verify`` work on its embeddings, ``identify`` on its classifier.
"""

from nip_audio._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

"""Old module paths, kept because published SpeechBrain YAMLs and scripts name them.

What lies here only forwards to ``nip_audio.speechbrain``; new code imports from there.
"""

"""Name the formats that are not decoded here, by their content, and say what to do with them."""

from __future__ import annotations

_IMAGE = "choose an image model with --model (nip-audio models lists them)"
_UNPACK = "unpack it, and pass the files in it"
_INSIDE = "unpack it, or pass the recordings in it (such as voices.zip/ann/a.wav)"
_REMOVE = "remove it"
_STARTS: tuple[tuple[bytes, str, str], ...] = (  # an ending stands for the way to convert it
    (b"\x89PNG", "an image", _IMAGE),
    (b"\xff\xd8\xff", "an image", _IMAGE),
    (b"wvpk", "WavPack", ".wv"),
    (b"MAC ", "Monkey's Audio", ".ape"),
    (b"TTA1", "True Audio", ".tta"),
    (b"ajkg", "Shorten", ".shn"),
    (b"#!AMR", "AMR", ".amr"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media", ".wma"),
    (b"DSD ", "DSD", ".dsf"),
    (b"Creative Voice File", "VOC", ".voc"),
    (b"FLV\x01", "Flash video", ".flv"),
    (b".RMF", "RealMedia", ".rm"),
    (b"PK\x03\x04", "a ZIP archive", _INSIDE),
    (b"\x1f\x8b", "a gzip archive", _INSIDE),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"%PDF", "a PDF document", _REMOVE),
    (b"<!DOCTYPE html", "a web page", "download the recording itself"),
    (b"<html", "a web page", "download the recording itself"),
)
_BRANDS: tuple[tuple[bytes, str, str], ...] = (
    (b"3gp", "3GP", ".3gp"),
    (b"3g2", "3GP", ".3g2"),
    (b"M4A", "MPEG-4 audio", ".m4a"),
    (b"qt ", "QuickTime", ".mov"),
    (b"", "MPEG-4", ".mp4"),
)
_OGG = ((b"\x7fFLAC", "FLAC in Ogg"), (b"fLaC", "FLAC in Ogg"), (b"Speex   ", "Speex in Ogg"))


def foreign_format(head: bytes) -> tuple[str, str] | None:
    """Return the name of a format and what to do; None for a format that is not known here.

    Args:
        head: The first 300 bytes of the file.

    Example:
        >>> foreign_format(b"wvpk" + bytes(300))
        ('WavPack', 'convert it: ffmpeg -i IN.wv OUT.flac')
    """
    found = next(((name, how) for start, name, how in _STARTS if head.startswith(start)), None)
    if head[4:8] == b"ftyp":
        found = next((name, how) for brand, name, how in _BRANDS if head[8:11].startswith(brand))
    elif head.startswith(b"\x1a\x45\xdf\xa3"):
        found = ("WebM", ".webm") if b"webm" in head[:64] else ("Matroska", ".mka")
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        found = "AVI video", ".avi"
    elif head[:2] in (b"\xff\xf1", b"\xff\xf9"):
        found = "AAC", ".aac"
    elif head[257:262] == b"ustar":
        found = "a tar archive", _INSIDE
    elif head[:7] == b"NIST_1A":  # only reached if the decoder has refused it
        found = "NIST SPHERE with compression", ".sph"
    if found is None:
        return None
    name, how = found
    return name, f"convert it: ffmpeg -i IN{how} OUT.flac" if how.startswith(".") else how


def ogg_codec(head: bytes) -> str | None:
    """Return the name of an Ogg stream's codec that is not decoded here.

    Args:
        head: First bytes of the stream's first packet.
    """
    return next((name for start, name in _OGG if head.startswith(start)), None)

"""Write every results page: python -m studies.write_pages."""

from __future__ import annotations

from importlib import import_module

from studies._lib.pages import Page

__all__ = ["all_pages"]

_MODULES = (
    "attacks",
    "backdoors",
    "coverage",
    "detection",
    "embedders",
    "gate",
    "guard",
    "hardening",
    "images",
    "models",
    "nccr",
    "nip",
    "nip.neurons",
    "robustness",
    "screening",
    "start",
    "thresholds",
    "verification",
    "xvector",
    "your_model",
)


def all_pages() -> list[Page]:
    """Return the pages, in the order of their studies' names."""
    return [import_module(f"studies.{name}.page").PAGE for name in _MODULES]


if __name__ == "__main__":
    for page in all_pages():
        print(page.write())

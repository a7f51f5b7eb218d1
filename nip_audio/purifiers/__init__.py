"""Purifiers, which change an input before the network sees it, and defences inside the network."""

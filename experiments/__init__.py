"""Presets, and one file per published table or figure."""

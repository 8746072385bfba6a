"""The release factory of FlagOS serving images."""

__version__ = "0.1.0"

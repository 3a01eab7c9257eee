"""The commands of ``feedmill``: one module each, with its click command as ``command``."""

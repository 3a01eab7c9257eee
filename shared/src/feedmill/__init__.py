"""What Feedmill's workers share: broker, store, pipeline, probes, metrics, settings, models."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("feedmill")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"

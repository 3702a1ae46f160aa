"""hwdkit distils semantic-segmentation networks. Import submodules; this file stays free of torch."""

__version__ = "0.1.0"

"""The names of the datasets that hwdkit knows, for those who must not import what is behind them."""

NAMES = (
    "ade20k",
    "camvid",
    "cityscapes",
    "coco-stuff-10k",
    "coco-stuff-164k",
    "coco-stuff-164k-182",
    "scenes",
    "voc-aug",
)
"""The keys of `datasets.DATASETS`; a test compares."""

"""The three parts of a site's images, as both ends name them."""

SPLITS = ("train", "val", "test")

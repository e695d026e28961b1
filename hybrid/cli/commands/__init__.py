"""One file per command; hybrid.cli lists them."""

"""Builds the Debian package: `python -m scripts.deb` (`make deb`)."""

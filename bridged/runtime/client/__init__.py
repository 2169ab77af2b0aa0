"""The client role: calls servers until one lets it in."""

"""One tunnel at work, whatever its role."""

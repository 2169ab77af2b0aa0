"""What daemon and service manager tell each other: readiness, descriptors, signs of life, privileges."""

"""The Debian package in a Debian system with systemd, in a virtual machine: `make test-appliance`."""

"""The policy stage of each direction: everything that decides whether a frame may pass is asked here."""

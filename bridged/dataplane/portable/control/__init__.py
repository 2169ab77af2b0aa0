"""What goes up to the control plane, and the counters, rates and timers behind it."""

"""Pure: the plan that turns the host's links into what is wanted, and back."""

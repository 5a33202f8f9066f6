"""Every write that moves an item or opens a halt; `transitions` is the one module that sets a state."""

"""Every write that moves an item or opens a halt; `transitions` is the only module that sets a state."""

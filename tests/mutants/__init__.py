"""Faults planted in the actor core, one at a time, to see whether the property suite finds them."""

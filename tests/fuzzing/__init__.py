"""A raw HTTP fuzzer: seeds become misbehaving peers, and a server in a process of its own must outlive them."""

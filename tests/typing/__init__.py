"""What the type checker must accept and must reject, for the public API of the actor core.

`accepted.py` holds only code that pyright in strict mode accepts. In `rejected.py` each line that ends with
`# error: <rule>` must be reported under that rule, and no other line may be. `python -m tests.typing` runs pyright and
compares; it is part of `make check`, where pyright is installed.
"""

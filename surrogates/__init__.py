"""Make answers cheap, and exact again: networks and emulators trained from a program.

Nothing is public here yet; README.md in this folder says what is coming and by which rules.
"""

__all__: list[str] = []

"""The name of the file that says, while it is locked, that a program gathers requests into its folder."""

LOCK = ".lock"

"""A request before it is measured: who sent it, whether it is a canary, and requests sent again."""

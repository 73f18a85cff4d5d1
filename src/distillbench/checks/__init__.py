"""What this code has to keep: the rules of every method, and the numbers of the official code."""

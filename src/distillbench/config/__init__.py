"""From `params/*.yaml` to run specifications. Nothing in here imports torch or numpy."""

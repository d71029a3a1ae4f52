"""What runs in the confined process: the standard library only, for it has nothing else."""

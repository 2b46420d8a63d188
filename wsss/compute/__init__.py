"""What a machine gives: device, GPUs, threads, processes, seeds."""

"""Every command but `train`, a file each."""

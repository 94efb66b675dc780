"""What a run will take, before it takes it: --dry-run, with its hours, GPU-hours and bytes on disk."""

"""What computes: captured graphs, streams, dtypes, the host's allocator, gauges. None knows another."""

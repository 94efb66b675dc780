"""What the package is measured against; tests/benchmarks holds them to be right."""

"""VAR (arXiv 2404.02905): so far the names and shapes of its published weights."""

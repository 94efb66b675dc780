"""Plain-torch truth of every op: tests compare against it, and it runs where no fused op does."""

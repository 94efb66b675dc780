"""What the doors do with one saved model: sample it, judge it, share it."""

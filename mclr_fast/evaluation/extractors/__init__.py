"""Networks whose features images are judged by."""

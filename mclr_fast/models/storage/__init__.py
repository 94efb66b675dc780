"""Models as files: our folders and their cards, the hub's, other programs' files, and from one to another."""

"""Which run a folder is of: options, what their files hold, versions; and what its models say of that."""

"""Studies of a judge: whether what it says of data can be trusted."""

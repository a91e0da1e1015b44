"""Studies of the paper: grids of runs that are trained and evaluated in the same way."""

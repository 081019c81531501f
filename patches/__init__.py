"""Small modules that replace named upstream functions, one reason each."""

"""Tables of mixed columns: their kinds, missing values, and their form in files."""

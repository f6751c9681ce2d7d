"""Tables of mixed columns: the kinds of columns, missing values, and the form of tables in files."""

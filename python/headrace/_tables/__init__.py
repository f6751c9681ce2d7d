"""Tables as they come: kinds of columns, missing values, what a file keeps of them."""

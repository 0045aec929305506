"""What datasets hold, in flat columns, and the label space that joins them."""

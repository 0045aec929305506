"""What datasets hold, in flat columns: a table for each kind of label, the label space that joins them, and their faults."""

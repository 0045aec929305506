"""`ddptrain compare`: a verdict from stored evaluations, and a line of words where there is none."""

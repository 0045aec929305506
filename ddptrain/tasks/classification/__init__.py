"""Classification: what a whole image shows, one class or several."""

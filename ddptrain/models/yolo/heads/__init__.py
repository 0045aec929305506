"""Heads of the detector: from the maps of the neck to a prediction. A file a head."""

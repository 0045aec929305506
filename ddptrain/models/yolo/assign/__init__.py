"""Assigners: which points of the detector learn which objects. `choose.assign` is the way in; a file an assigner."""

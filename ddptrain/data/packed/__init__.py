"""Decoded images in files that all processes of a machine map: what is in them (plan), their reading (file), their making
(build)."""

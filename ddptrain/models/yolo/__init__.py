"""The package's own detector: network, assigner, loss and decoding, behind `detector.YoloDetector`."""

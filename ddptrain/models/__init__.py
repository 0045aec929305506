"""Networks, each a slice with what belongs to it.

detector.py               what a detector offers; build.py lists them all
yolo/                     the package's own detector: network, assigner, loss, decoding
torchvision_detectors.py  torchvision's detectors
segmenters.py             torchvision's segmenters; mask2former/ is Mask2Former of transformers with its loss
classifiers.py            torchvision's classifiers and two for small images
interaction.py            pairs of people
class_layers.py  norms.py  pretrained.py  torchvision_backbone.py  windows.py   what several networks use
"""

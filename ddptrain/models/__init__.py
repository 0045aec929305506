"""Networks, each a slice of its own. A new one: a file or a folder here, a class of the config, a line in build.py.

build.py                    the detectors and the segmenters by name; detector.py, segmenter.py  what each of them offers
yolo/                       the package's own detector: network, assigner, loss, decoding
torchvision_detectors.py    torchvision's detectors; torchvision_segmenters.py  its segmenters
mask2former/                Mask2Former of transformers, with its loss
classifiers.py              torchvision's classifiers and two for small images, by name
interaction.py              the network for pairs of people
class_layers.py  norms.py  pretrained.py  torchvision_backbone.py  windows.py   what several networks use
"""

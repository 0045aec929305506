"""How good the detections are: COCO, VOC and VisDrone average precision, curves and confusions."""

"""Metrics: average precision of detections (COCO, VOC, VisDrone), classification, segmentation (mIoU)."""

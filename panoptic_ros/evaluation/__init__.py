"""Panoptic quality and mIoU of a model or of predictions."""

"""Other people's weights: what the importers share, and where each is."""

FORMATS = {
    "realtime_panoptic": "panoptic_ros.networks.dense_detection.checkpoint",
    "epsnet": "panoptic_ros.networks.epsnet.checkpoint",
    "panoptic_fcn": "panoptic_ros.networks.panoptic_fcn.checkpoint",
    "torchvision": "panoptic_ros.checkpoints.backbones",
    "efficientnet_lite": "panoptic_ros.checkpoints.backbones",
}

"""The parts of the synthetic street generator; panoptic_ros.data.synthetic puts them together."""

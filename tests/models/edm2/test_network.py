"""What the EDM2 network promises beyond its numbers: presets, labels [N,R], state, dropout, dtypes."""

import pytest
import torch

from mclr_fast import ops
from mclr_fast.models.edm2 import (
    PRESETS,
    DropoutKey,
    Precond,
    force_weight_norm_,
    normalized_weights,
)
from mclr_fast.models.edm2.layers import Block

NUM_CLASSES = 5
MILLIONS = {64: 31.3, 128: 124.7, 192: 280.2, 256: 497.8, 320: 777.5, 384: 1119.3, 448: 1523.2}
PUBLISHED = {  # channels, duration in Mi images, learning rate, dropout
    "edm2-img512-xxs": (64, 2048, 0.017, 0.0),
    "edm2-img512-xs": (128, 2048, 0.012, 0.0),
    "edm2-img512-s": (192, 2048, 0.01, 0.0),
    "edm2-img512-m": (256, 2048, 0.009, 0.1),
    "edm2-img512-l": (320, 1792, 0.008, 0.1),
    "edm2-img512-xl": (384, 1280, 0.007, 0.1),
    "edm2-img512-xxl": (448, 896, 0.0065, 0.1),
    "edm2-img64-xs": (128, 1024, 0.012, 0.0),
    "edm2-img64-s": (192, 1024, 0.01, 0.0),
    "edm2-img64-m": (256, 2048, 0.009, 0.1),
    "edm2-img64-l": (320, 1024, 0.008, 0.1),
    "edm2-img64-xl": (384, 640, 0.007, 0.1),
}


def tiny(**overrides):
    """A seeded net of two levels with attention, whose gains are not zero."""
    torch.manual_seed(0)
    arguments = dict(model_channels=8, channel_mult=(1, 2), num_blocks=1, logvar_channels=8)
    arguments |= dict(attn_resolutions=(4,), channels_per_head=8)
    net = Precond(8, 2, NUM_CLASSES, **(arguments | overrides))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "gain" in name:
                parameter.normal_()
    return net


def batch(*lead):
    """x [*lead,2,8,8] and sigma [lead[0]]."""
    torch.manual_seed(1)
    return torch.randn(*lead, 2, 8, 8), torch.rand(lead[0]) * 3 + 0.1


def close(found, expected, relative):
    torch.testing.assert_close(found, expected, rtol=0, atol=relative * expected.detach().abs().max().item())


class TestPresets:
    def test_names(self):
        assert PRESETS.keys() == PUBLISHED.keys()

    @pytest.mark.parametrize("name", PUBLISHED)
    def test_values(self, name):
        channels, duration, lr, dropout = PUBLISHED[name]
        preset = PRESETS[name]
        latents = "img512" in name
        with torch.device("meta"):
            net = Precond(**preset.net)
        num_parameters = sum(p.numel() for p in net.parameters())
        assert round(num_parameters / 1e6, 1) == MILLIONS[channels]
        assert (net.img_resolution, net.img_channels) == (64, 4 if latents else 3)
        assert (preset.duration, preset.batch_size) == (duration * 2**20, 2048)
        assert (preset.ref_lr, preset.ref_batches) == (lr, 70000 if latents else 35000)
        assert (preset.P_mean, preset.P_std) == ((-0.4, 1.0) if latents else (-0.8, 1.6))
        assert preset.dropout == dropout

    def test_unconditional(self):
        with torch.device("meta"):
            net = Precond(64, 4, 0, model_channels=128)
        assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 124.2
        assert "unet.emb_label.weight" not in net.state_dict()


class TestColumns:
    """Labels [N,R]."""

    @pytest.mark.parametrize("per_column", [False, True])
    def test_equal_separate_calls(self, per_column):
        net, labels = tiny(), torch.tensor([[0, 1, 1], [4, -1, 2]])
        x, sigma = batch(2, 3) if per_column else batch(2)
        cotangent = torch.randn(2, 3, 2, 8, 8)

        def run(columns):
            net.zero_grad()
            leaf = x.clone().requires_grad_()
            denoised = columns(leaf)
            denoised.backward(cotangent)
            grads = {k: p.grad for k, p in net.named_parameters() if p.grad is not None}
            return denoised.detach(), {"x": leaf.grad, **grads}

        def separate(leaf):
            images = leaf.unbind(1) if per_column else [leaf] * 3
            return torch.stack([net(image, sigma, labels[:, r]) for r, image in enumerate(images)], dim=1)

        found, grads = run(lambda leaf: net(leaf, sigma, labels))
        expected, truths = run(separate)
        close(found, expected, 1e-6)
        assert grads.keys() == truths.keys()
        # A gain's gradient is one sum over the whole net's activations and may cancel: judge them together.
        gains = [name for name in truths if name.endswith("gain")]
        close(*(torch.cat([source[name] for name in gains]) for source in (grads, truths)), 1e-5)
        for name in truths.keys() - set(gains):
            close(grads[name], truths[name], 1e-5)

    def test_scalar_sigma_and_contrast(self):
        net, labels, (x, _) = tiny(), torch.tensor([[0, 1], [4, 2]]), batch(2)
        sigma = torch.tensor(0.7)
        found = net.contrast(x, sigma, labels)
        assert found.shape == (2, 2, 2, 8, 8)
        for r in range(2):
            close(found[:, r], net(x, sigma, labels[:, r]), 1e-6)

    @pytest.mark.parametrize("return_logvar", [False, True])
    def test_number_of_evaluations(self, return_logvar):
        """N R = N (1+K) rows pass the network, not 2 N K."""
        net, (x, sigma) = tiny(), batch(3)
        rows = {}
        first = net.unet.enc["8x8_block0"]
        watched = [net.unet.enc["8x8_conv"], first, first.conv_res0, first.conv_res1, net.unet.out_conv]
        for name, module in net.unet.named_modules():
            if module in watched:
                module.register_forward_hook(
                    lambda _, inputs, __, name=name: rows.update({name: rows.get(name, 0) + len(inputs[0])})
                )
        net(x, sigma, torch.tensor([[0, 1, 2, 3]] * 3), return_logvar=return_logvar)
        assert len(rows) == len(watched)
        # What comes before the label runs once an image.
        assert rows["enc.8x8_conv"] == rows["enc.8x8_block0"] == 3
        assert rows["enc.8x8_block0.conv_res0"] == 3
        assert rows["enc.8x8_block0.conv_res1"] == rows["out_conv"] == 3 * 4

    def test_one_column_and_no_row(self):
        net, (x, sigma) = tiny(), batch(2)
        labels = torch.tensor([3, 0])
        assert torch.equal(net(x, sigma, labels[:, None])[:, 0], net(x, sigma, labels))
        assert net(x[:0], sigma[:0], torch.zeros(0, 4, dtype=torch.int64)).shape == (0, 4, 2, 8, 8)


class TestLabels:
    def test_forms(self):
        net, (x, sigma) = tiny(), batch(3)
        labels = torch.tensor([2, 0, 4])
        one_hot = torch.nn.functional.one_hot(labels, NUM_CLASSES)
        assert torch.equal(net(x, sigma, labels), net(x, sigma, one_hot.float()))
        none = net(x, sigma)
        assert torch.equal(net(x, sigma, torch.full((3,), -1)), none)
        assert torch.equal(net(x, sigma, torch.zeros(3, NUM_CLASSES)), none)
        assert not torch.allclose(net(x, sigma, labels), none)

    def test_unconditional_net_ignores_labels(self):
        net, (x, sigma) = tiny(), batch(2)
        net = Precond(8, 2, 0, model_channels=8, channel_mult=(1,), num_blocks=1)
        assert torch.equal(net(x, sigma, torch.tensor([0, 9])), net(x, sigma))

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (torch.tensor([0, 5]), r"lie in \[0, 5\]; this net knows classes 0 to 4"),
            (torch.tensor([[0, 1], [-2, 1]]), r"lie in \[-2, 1\]"),
            (torch.zeros(2, 4), r"floating class_labels must be \[2,5\] for 2 images, not \[2, 4\]"),
            (torch.zeros(2), r"floating class_labels must be \[2,5\] for 2 images, not \[2\]"),
        ],
    )
    def test_errors(self, labels, message):
        with pytest.raises(ValueError, match=message):
            tiny()(*batch(2), labels)

    @pytest.mark.parametrize("labels", [None, torch.tensor([0, 1]), torch.tensor([[0, 1], [1, 2]])])
    def test_images_a_label_need_labels_of_their_shape(self, labels):
        with pytest.raises(ValueError, match=r"needs int64 class_labels \[2,3\]"):
            tiny()(*batch(2, 3), labels)


class TestState:
    def test_gains_are_published_as_scalars(self):
        net = tiny()
        state = net.state_dict()
        gains = [name for name, p in net.named_parameters() if "gain" in name]
        assert len(gains) == 1 + sum("emb_linear" in name for name in state)
        parameters = dict(net.named_parameters())
        for name in gains:
            assert parameters[name].shape == (1,) and state[name].shape == ()
        assert not [name for name, p in net.named_parameters() if p.ndim == 0]

    def test_round_trip(self):
        net, other = tiny(), tiny()
        with torch.no_grad():
            for value in other.state_dict().values():
                value.zero_()
        state = {name: value.clone() for name, value in net.state_dict().items()}
        given = {name: value.shape for name, value in state.items()}
        other.load_state_dict(state, strict=True)
        assert {name: value.shape for name, value in state.items()} == given
        for name, value in other.state_dict().items():
            assert torch.equal(value, state[name])
        x, sigma = batch(2)
        assert torch.equal(net(x, sigma), other(x, sigma))

    def test_gains_of_a_wrapped_net(self):
        """The hooks follow the names wherever the net sits in a larger module."""
        wrapper = torch.nn.ModuleDict({"net": tiny()})
        state = wrapper.state_dict()
        assert state["net.unet.out_gain"].shape == ()
        wrapper.load_state_dict(state, strict=True)

    def test_forward_never_writes(self):
        """Two training forwards before a backward work, and no parameter changes by a bit."""
        net, (x, sigma) = tiny(), batch(2)
        net.train()
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        versions = {name: p._version for name, p in net.named_parameters()}
        first = net(x, sigma, torch.tensor([0, 1]))
        second, logvar = net(x, sigma, torch.tensor([[2, 1], [0, 3]]), return_logvar=True)
        (first.sum() + second.sum() + logvar.sum()).backward()
        for name, parameter in net.named_parameters():
            assert torch.equal(parameter, before[name])
            assert parameter._version == versions[name]
            assert parameter.grad.abs().sum() > 0

    def test_force_weight_norm_(self):
        """Every weight's rows get unit RMS, gains stay, and the output hardly moves."""
        net, (x, sigma) = tiny(), batch(2)
        weights = [p for name, p in net.named_parameters() if name.endswith(".weight")]
        assert {id(p) for p in normalized_weights(net)} == {id(p) for p in weights}
        gains = {n: p.detach().clone() for n, p in net.named_parameters() if "gain" in n}
        with torch.no_grad():
            for weight in weights:
                weight.mul_(torch.rand(len(weight), *[1] * (weight.ndim - 1)) * 5 + 1)
        before = net(x, sigma)
        force_weight_norm_(net)
        for weight in weights:
            rms = weight.detach().flatten(1).square().mean(1).sqrt()
            assert ((rms - 1).abs() < 1.5e-3).all()
        assert all(torch.equal(dict(net.named_parameters())[n], g) for n, g in gains.items())
        close(net(x, sigma), before, 5e-3)


class TestDropout:
    LABELS = torch.tensor([[1, 1, 1], [0, 0, 0], [2, 2, 2]])

    def run(self, position, rows=slice(None), seed=3, **kwargs):
        net, (x, sigma) = tiny(dropout=0.5, **kwargs).train(), batch(3)
        key = DropoutKey(seed, torch.tensor(position)[rows])
        return net(x[rows], sigma[rows], self.LABELS[rows], dropout_key=key).detach()

    def test_columns_of_a_row_share_their_masks(self):
        """The same label in every column: the same output, so the same masks."""
        found = self.run([4, 8, 2**33])
        for column in (1, 2):  # another mask changes much more than the order of a sum does
            close(found[:, column], found[:, 0], 1e-6)
        net, (x, sigma) = tiny(dropout=0.5).train(), batch(3)
        unkeyed = net(x, sigma, self.LABELS)
        assert not torch.allclose(unkeyed[:, 0], unkeyed[:, 1])

    def test_masks_depend_on_seed_and_position_alone(self):
        found = self.run([4, 8, 2**33])
        for row in range(3):
            close(self.run([4, 8, 2**33], slice(row, row + 1))[0], found[row], 1e-6)
        assert torch.equal(self.run([4, 8, 2**33]), found)
        assert not torch.allclose(self.run([5, 8, 2**33])[0], found[0])
        assert not torch.allclose(self.run([4, 8, 2**33], seed=4)[0], found[0])

    def test_every_block_has_its_own_mask(self, monkeypatch):
        keys, modulate_silu = [], ops.modulate_silu
        monkeypatch.setattr(
            ops, "modulate_silu", lambda *args: keys.append(args[-1][:2]) or modulate_silu(*args)
        )
        self.run([4, 8, 2])
        num_blocks = sum(isinstance(module, Block) for module in tiny().modules())
        assert len(keys) == len(set(keys)) == num_blocks > 0
        assert {seed for seed, _ in keys} == {3}

    def test_none_in_eval_mode(self):
        x, sigma = batch(3)
        net = tiny(dropout=0.5).eval()
        assert torch.equal(net(x, sigma), tiny().eval()(x, sigma))


@pytest.mark.parametrize(("dtype", "relative"), [(torch.bfloat16, 1.2e-2), (torch.float16, 2e-3)])
def test_half_precision_is_near_float32(dtype, relative):
    x, sigma = batch(3)
    labels = torch.tensor([[0, 1], [2, 3], [4, -1]])
    net, half = tiny(), tiny(dtype=dtype)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    (expected, logvar), (found, half_logvar) = (n(x, sigma, labels, return_logvar=True) for n in (net, half))
    assert found.dtype == half_logvar.dtype == torch.float32
    assert torch.equal(logvar, half_logvar)
    assert not torch.equal(found, expected)
    close(found, expected, relative)


def test_other_resample_filters_are_refused():
    with pytest.raises(ValueError, match=r"resample_filter must be \(1, 1\)"):
        tiny(resample_filter=(1, 2, 1))


@pytest.mark.parametrize("shape", [(3,), (1,), (3, 2), (2, 2, 2)])
def test_labels_for_another_number_of_images_are_refused(shape):
    net = Precond(8, 1, 4, model_channels=8, channel_mult=(1,), num_blocks=1, channels_per_head=8)
    x, labels = torch.zeros(2, 1, 8, 8), torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match="for 2 images"):
        net(x, torch.ones(()), labels)
    with pytest.raises(ValueError, match="3 values for 2 images"):
        net(x, torch.ones(3), torch.zeros(2, dtype=torch.int64))

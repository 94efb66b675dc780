"""Of EDM2 as a family: its network, presets and files."""

FAULTS = [
    (
        "attention's gradient of k without its scale",
        "models/edm2/attention.py",
        "torch.baddbmm(nothing, grad_logits.mT, q, beta=0, alpha=scale)",
        "torch.baddbmm(nothing, grad_logits.mT, q, beta=0, alpha=1.0)",
        "models/edm2/test_attention.py",
    ),
    (
        "u(sigma) trained by every objective",
        "models/edm2/family.py",
        "left_out = set() if own_loss else set(map(id, net.logvar_linear.parameters()))",
        "left_out = set()",
        "training/test_trainer.py",
    ),
    (
        "a program kept when the network's weights have changed",
        "models/edm2/inference.py",
        "if net not in _held or _held[net][0] is not mark:",
        "if net not in _held:",
        "models/edm2/test_inference.py",
    ),
    (
        "a block's two balances swapped",
        "models/edm2/layers.py",
        "            x = ops.mp_sum_clip(x, y, self.res_balance)\n"
        "            return self._leave(x, self._attend(x), self.attn_balance)",
        "            x = ops.mp_sum_clip(x, y, self.attn_balance)\n"
        "            return self._leave(x, self._attend(x), self.res_balance)",
        "models/edm2/test_network.py models/edm2/test_network_golden.py models/edm2/test_inference.py",
    ),
    (
        "dropout's masks alike in all blocks",
        "models/edm2/network.py",
        "            layer += 1\n",
        "            layer = 1\n",
        "models/edm2/test_network.py",
    ),
    (
        "a label's embedding without the root of the number of classes",
        "models/edm2/network.py",
        "return label * math.sqrt(len(columns))",
        "return label",
        "models/edm2/test_network_golden.py",
    ),
    (
        "no label taken for class 0",
        "models/edm2/network.py",
        "F.embedding(labels.clamp(min=0), columns) * (labels >= 0)[:, :, None]",
        "F.embedding(labels.clamp(min=0), columns)",
        "models/edm2/test_network_golden.py models/edm2/test_network.py",
    ),
    (
        "a preset's noise levels of the other resolution",
        "models/edm2/presets.py",
        "P_mean=-0.4 if latents else -0.8,",
        "P_mean=-0.8 if latents else -0.4,",
        "models/edm2/test_network.py experiments/test_checks.py integrations/test_convert.py",
    ),
    (
        "phases of rows where those of columns are meant",
        "models/edm2/resample.py",
        'torch.einsum("iua,jvb->ijuvab", axis, axis)',
        'torch.einsum("iua,jvb->jiuvab", axis, axis)',
        "models/edm2/test_resample.py",
    ),
    (
        "heads of another width than a snapshot computes with",
        "models/edm2/snapshot.py",
        "    if heads != expected:\n",
        "    if heads > width:\n",
        "models/storage/test_carried.py models/storage/test_pickled.py",
    ),
    (
        "a training state's averages that are the weights' own memory",
        "models/edm2/training_state.py",
        "[_copy(weights) for _ in ema_stds]",
        "[_copy(weights)] * len(ema_stds)",
        "integrations/test_convert.py",
    ),
    (
        "a state's noise levels always EDM2Loss's own",
        "models/edm2/training_state.py",
        "P_mean, P_std = noise_level or presets.get(size, LOSS_DEFAULT)",
        "P_mean, P_std = noise_level or LOSS_DEFAULT",
        "models/storage/test_convert.py integrations/test_convert.py integrations/test_resume.py",
    ),
    (
        "levels down to an odd side",
        "models/edm2/sizes.py",
        "side % 2 == 0 and side // 2 >= lowest",
        "side // 2 >= lowest",
        "models/edm2/test_sizes.py",
    ),
]

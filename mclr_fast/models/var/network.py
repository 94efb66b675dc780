"""VAR's transformer: logits of all tokens of an image at once, and exact likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mclr_fast import ops

from .inference import generate
from .layers import AdaLN, Block, HeadNorm
from .presets import PATCH_NUMS
from .quantizer import check_range
from .scales import checked, spans

if TYPE_CHECKING:
    from .quantizer import Quantizer
    from .tokenizer import Tokenizer


class VAR(nn.Module):
    """Next-scale prediction, with the published names. Source: VAR (arXiv 2404.02905), sections 3 and 4.

    Args:
        vocab_size, z_channels: of the VQVAE's codebook.
        num_classes: labels are 0 to num_classes - 1; -1 and num_classes are none.
        depth, embed_dim, num_heads, mlp_ratio, norm_eps: of the blocks.
        drop_path_rate: how often the last block's branches are left out in training; it rises from 0.
        cond_drop_rate: how often a base's labels were left out while it was trained. A call leaves out none,
            in training either: likelihoods are of the labels that are given, and training says which.
        attn_l2_norm, shared_aln: as `SelfAttention`'s l2_norm, and `Block`'s.
        patch_nums: side of each scale's token map, coarsest first.
        dtype: what blocks and, for likelihoods, the head compute in; the residual stream, norms, embeddings
            and what labels give stay float32, and so do parameters.
    """

    tokenizer: Tokenizer  # of a model whose family built it: its VQVAE

    def __init__(
        self,
        *,
        vocab_size: int = 4096,
        z_channels: int = 32,
        num_classes: int = 1000,
        depth: int = 16,
        embed_dim: int = 1024,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        cond_drop_rate: float = 0.1,
        norm_eps: float = 1e-6,
        attn_l2_norm: bool = True,
        shared_aln: bool = False,
        patch_nums: Sequence[int] = PATCH_NUMS,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim = {embed_dim} cannot be cut into num_heads = {num_heads} heads.")
        self.vocab_size = vocab_size
        self.z_channels = z_channels
        self.num_classes = num_classes
        self.cond_drop_rate = cond_drop_rate
        self.dtype = dtype
        self.patch_nums = checked(patch_nums)
        self.spans = spans(self.patch_nums)
        first, length = self.spans[0][1], self.spans[-1][1]
        small = embed_dim**-0.5
        self.pos_start = nn.Parameter(small * torch.randn(1, first, embed_dim))
        self.pos_1LC = nn.Parameter(small * torch.randn(1, length, embed_dim))
        levels = torch.cat([torch.full((end - begin,), k) for k, (begin, end) in enumerate(self.spans)])
        seen = levels[:, None] >= levels
        self.register_buffer("lvl_1L", levels[None])
        self.register_buffer("attn_bias_for_masking", torch.where(seen, 0.0, -torch.inf)[None, None])
        self.word_embed = nn.Linear(z_channels, embed_dim)
        self.class_emb = nn.Embedding(num_classes + 1, embed_dim)
        self.lvl_embed = nn.Embedding(len(self.patch_nums), embed_dim)
        if shared_aln:
            self.shared_ada_lin = AdaLN(embed_dim, 6)
        self.shared_aln = shared_aln
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                num_heads,
                round(embed_dim * mlp_ratio),
                norm_eps=norm_eps,
                l2_norm=attn_l2_norm,
                shared_aln=shared_aln,
            )
            for _ in range(depth)
        )
        self.drop_path_rate = drop_path_rate
        self.head_nm = HeadNorm(embed_dim, norm_eps)
        self.head = nn.Linear(embed_dim, vocab_size)
        self._initialize(small)

    @torch.no_grad()
    def _initialize(self, small: float) -> None:
        """Blocks start as the identity. Source: DiT (arXiv 2212.09748), section 3.2, adaLN-zero."""
        for embedding in (self.class_emb, self.lvl_embed):
            nn.init.normal_(embedding.weight, std=small)
        for module in self.modules():
            if isinstance(module, AdaLN):
                nn.init.zeros_(module[1].weight)
                nn.init.zeros_(module[1].bias)

    @property
    def length(self) -> int:
        """Tokens of an image."""
        return self.spans[-1][1]

    def forward(
        self,
        labels: Tensor,
        x_BLCv_wo_first_l: Tensor,
        targets: Tensor | None = None,
        *,
        coefficients: Tensor | Callable[[Tensor, slice], Tensor] | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Logits of every token, each given the coarser scales of its image; or -log p of an image's tokens.

        Shapes    labels: int64 [N] or [N,R]; x_BLCv_wo_first_l: float32 [N, L - p_0^2, Cv], or
                  [N, R, L - p_0^2, Cv] where a row's images differ -> logits float32 [N,L,V] or [N,R,L,V].
                  targets: the tokens, int64 [N,L] or [N,R,L] -> float32 [N] or [N,R], summed over an image's.
                  coefficients: [N] or [N,R], what the result's gradient will be where it is known, or known
                  from the result, by a function (part of it [n,R], its rows) -> [n,R]: then the head's
                  gradient is made in the same pass. kept: as `kept_branches` gives it; None: in training, of
                  torch's own draws, else all branches are.
        Gradient  the parameters.
        Cost      token embeddings once an image of N, all else once an evaluation of N R. With targets,
                  logits are never stored.
        Errors    ValueError for labels or tokens out of range (on the CPU), or inputs of other scales.
        """
        rows = labels[:, None] if labels.ndim == 1 else labels
        self._check(rows, x_BLCv_wo_first_l, targets)
        if kept is None and self.training and self.drop_path_rate > 0:
            kept = self.kept_branches(torch.rand(len(rows), 2 * len(self.blocks), device=rows.device))
        dtype = torch.float32 if targets is None else self.dtype
        hidden = self._hidden(rows, x_BLCv_wo_first_l, kept, dtype)
        if targets is None:
            return self.head(hidden).unflatten(0, labels.shape)
        wanted = targets[:, None] if targets.ndim == 2 else targets
        known = coefficients
        if callable(coefficients):
            known = lambda nll, part: coefficients(nll.sum(dim=2), part)  # noqa: E731
        elif coefficients is not None:
            known = coefficients.view(rows.shape)
        nll = ops.linear_cross_entropy(
            hidden.unflatten(0, rows.shape),
            self.head.weight,
            wanted.expand(*rows.shape, -1),
            bias=self.head.bias,
            coefficients=known,
        )
        return nll.sum(dim=2).view(labels.shape)

    def log_prob(self, tokens: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        """log p of images: tokens [B,L], labels [B], inputs as `forward` -> [B]. Not of wrapped nets."""
        return -self(labels, inputs, tokens)

    def contrast_log_prob(self, tokens: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        """log p of images under R labels each: tokens [N,L], labels [N,R] -> float32 [N,R]. As `log_prob`."""
        return -self(labels, inputs, tokens)

    def generate(
        self,
        labels: Tensor,
        quantizer: Quantizer,
        *,
        cfg: float = 0.0,
        top_k: int = 0,
        top_p: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Tokens of new images, int64 [B,L]: `inference.generate`, drawn from one generator."""
        self.check_labels(labels)
        return generate(self, labels, quantizer, cfg=cfg, top_k=top_k, top_p=top_p, generator=generator)

    def condition(self, labels: Tensor) -> Tensor:
        """Labels int64 [...] -> float32 [...,C]; below 0 is none."""
        return self.class_emb(torch.where(labels < 0, self.num_classes, labels))

    def positions(self) -> Tensor:
        """What a token's place and scale add to it, [1,L,C]."""
        return self.lvl_embed(self.lvl_1L) + self.pos_1LC

    def kept_branches(self, uniforms: Tensor) -> Tensor:
        """What the blocks' branches of an image are multiplied by, for all its labels: 0 leaves one out.

        uniforms: in [0, 1), [N, 2 depth] -> float32 [N, depth, 2], of mean 1.
        """
        rates = torch.linspace(0, self.drop_path_rate, len(self.blocks), device=uniforms.device)[:, None]
        return (uniforms.unflatten(1, (-1, 2)) >= rates) / (1 - rates)

    def _hidden(self, labels_NR: Tensor, inputs: Tensor, kept: Tensor | None, dtype: torch.dtype) -> Tensor:
        """What the head is given: [N R, L, C] of `dtype`."""
        num_columns = labels_NR.shape[1]
        cond, positions = self.condition(labels_NR), self.positions()
        num_first = self.pos_start.shape[1]
        first = cond.unsqueeze(2) + (self.pos_start + positions[:, :num_first])
        others = self.word_embed(inputs) + positions[:, num_first:]
        if others.ndim == 3:
            others = others.unsqueeze(1).expand(-1, num_columns, -1, -1)
        x = torch.cat([first, others], dim=2).flatten(0, 1)
        cond = cond.flatten(0, 1)
        mask = self.attn_bias_for_masking.to(self.dtype)
        given = self.shared_ada_lin(cond) if self.shared_aln else cond
        each = [None] * len(self.blocks)
        if kept is not None:
            each = kept.repeat_interleave(num_columns, dim=0).unbind(1)
        for block, own in zip(self.blocks, each, strict=True):
            x = block(x, given, mask, self.dtype, own)
        return self.head_nm(x, cond, dtype)

    def _check(self, labels_NR: Tensor, inputs: Tensor, targets: Tensor | None) -> None:
        num_rows, num_columns = labels_NR.shape
        wanted = (self.length - self.pos_start.shape[1], self.z_channels)
        if inputs.shape not in ((num_rows, *wanted), (num_rows, num_columns, *wanted)):
            raise ValueError(
                f"the inputs are {list(inputs.shape)}; {num_rows} images of scales {list(self.patch_nums)} "
                f"have {[num_rows, *wanted]}: they are another VQVAE's, or of images of another size."
            )
        if targets is not None and targets.shape not in (
            (num_rows, self.length),
            (num_rows, num_columns, self.length),
        ):
            raise ValueError(f"targets are {list(targets.shape)}, not {[num_rows, self.length]}: tokens.")
        if labels_NR.device.type == "cpu":  # elsewhere it would wait for the device; data sets are checked
            self.check_labels(labels_NR)
            if targets is not None:
                check_range(targets, self.vocab_size, "targets", "the vocabulary's tokens")

    def check_labels(self, labels: Tensor) -> None:
        """ValueError unless int64 labels are classes, or -1 or num_classes for none."""
        check_range(labels, self.num_classes + 1, "labels", f"classes (of {self.num_classes}, then none)", -1)

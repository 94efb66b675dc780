"""Of the drop-in losses: what their reference is, what their net drops, which pairs are matched after all."""

FAULTS = [
    (
        "labels dropped by VAR's net inside a likelihood",
        "integrations/var.py",
        "    net.cond_drop_rate = 0.0\n",
        "",
        "integrations/test_var.py",
    ),
    (
        "VAR's net left without label dropout after a loss's call",
        "integrations/var.py",
        "net.cond_drop_rate = rate",
        "pass",
        "integrations/test_var.py",
    ),
    (
        "labels rolled the other way than CCA's release does",
        "integrations/var.py",
        "labels.roll(-k)",
        "labels.roll(k)",
        "integrations/test_var.py",
    ),
    (
        "a rolled label that is the own one taken for a wrong one beside dropped labels",
        "integrations/var.py",
        "matched | (rows.labels[:, 1:] == rows.labels[:, :1])",
        "matched",
        "integrations/test_var.py",
    ),
    (
        "the reference in the mode that the net is in: its branches dropped too",
        "integrations/frozen_reference.py",
        "copy.deepcopy(unwrapped(net)).eval()",
        "copy.deepcopy(unwrapped(net))",
        "integrations/test_var.py integrations/test_nvlabs_edm2.py",
    ),
    (
        "the saved reference not read: a resumed run compares with its own net",
        "integrations/kept_reference.py",
        "if self.reference_weights is None:",
        "if True:",
        "integrations/test_resume.py integrations/test_var.py",
    ),
    (
        "EDM2's reference in float32, twice as much in every checkpoint",
        "integrations/nvlabs_edm2.py",
        "reference_dtype: ClassVar[torch.dtype] = torch.float16",
        "reference_dtype: ClassVar[torch.dtype] = torch.float32",
        "integrations/test_nvlabs_edm2.py",
    ),
    (
        "another's net called as EDM2's: it does not take return_logvar",
        "integrations/asked.py",
        "if not _has_logvar(net):",
        "if False:",
        "integrations/test_own_denoisers.py",
    ),
    (
        "the net's own sigma_data not asked for",
        "integrations/nvlabs_edm2.py",
        'getattr(unwrapped(net), "sigma_data", SIGMA_DATA)',
        "SIGMA_DATA",
        "integrations/test_own_denoisers.py",
    ),
    (
        "a network that is given as the reference left aside: the trained one at the first call is taken",
        "integrations/kept_reference.py",
        "self._keep(FrozenReference.of(given, self.reference_dtype, GIVEN))",
        "pass",
        "integrations/test_own_denoisers.py",
    ),
]

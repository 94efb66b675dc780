# The metadata is in pyproject.toml. csrc/ will be built here, without importing torch.
from setuptools import setup

setup()

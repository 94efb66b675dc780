"""What the tests of models as files share."""

import pytest

from mclr_fast import convert


@pytest.fixture
def door(capsys):
    """`door(*arguments)` -> exit code, stderr."""

    def call(*arguments):
        return convert.main(list(map(str, arguments))), capsys.readouterr().err

    return call

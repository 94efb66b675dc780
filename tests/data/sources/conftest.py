"""What the tests of sources share."""

import pytest
from kept import write_tar, write_zip


@pytest.fixture(params=["folder", "zip", "tar", "tgz"])
def make(request, tmp_path):
    """Writes {name: bytes} as a folder, a zip or a tar, under the names as they are -> Source's arguments."""

    def write(files, folders=()):
        path = tmp_path / f"set.{request.param}"
        if request.param == "folder":
            for name in folders:
                (path / name).mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)
        elif request.param == "zip":
            write_zip(path, files.items(), folders)
        else:
            write_tar(path, files, folders, "w:gz" if request.param == "tgz" else "w")
        return path

    return write

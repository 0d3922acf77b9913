import threading

import pytest

from nc_lightning.errors import errors_on_one_line


def run_in_a_thread(error):
    def fail():
        raise error

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


def test_a_full_disk_in_a_writer_s_thread_prints_no_traceback(capsys, monkeypatch):
    monkeypatch.delenv("NC_DEBUG", raising=False)
    before = threading.excepthook
    with errors_on_one_line("nc-train"):
        run_in_a_thread(OSError(28, "No space left on device"))
        assert capsys.readouterr().err == ""
        run_in_a_thread(ArithmeticError("a defect"))
        assert "a defect" in capsys.readouterr().err
        monkeypatch.setenv("NC_DEBUG", "1")
        run_in_a_thread(OSError(28, "No space left on device"))
        assert "No space left on device" in capsys.readouterr().err
    assert threading.excepthook is before
    monkeypatch.delenv("NC_DEBUG")
    with pytest.raises(SystemExit), errors_on_one_line("nc-train"):
        raise ValueError
    assert threading.excepthook is before

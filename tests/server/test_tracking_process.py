from server.tracking_process import reason


def test_a_reason_is_one_short_line_without_passwords() -> None:
    class ReadTimeout(Exception):
        pass

    assert reason(ReadTimeout("..."), "http://me:secret@host") == "http://host did not answer in time"
    assert reason(ValueError("no\n http://me:secret@host " + "x" * 300), "") == "no http://host " + "x" * 182 + "..."

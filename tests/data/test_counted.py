from wsss.data.counted import counted


def test_one_thing_is_no_plural() -> None:
    assert [counted(number, "photo") for number in (0, 1, 2)] == ["0 photos", "1 photo", "2 photos"]
